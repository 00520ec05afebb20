#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0: on CPU an FSDP plugin is taken and dropped without a word; each of two processes
# trains a whole copy.
#
# The documentation gives `Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))` as all that is needed.
# Without a GPU (gloo), two processes started by torchrun are MULTI_CPU: `prepare` wraps the model for data parallel
# training, all of its weights stay whole in each process, and no warning is given, although torch's own `fully_shard`
# works on the same two processes. A program tried on CPU first shows nothing of what sharded weights do.
#
# Output seen:
#   plugin: MULTI_CPU, weight whole: True, bytes held of 1,024: 1,024, warnings: 0
#   fully_shard: weight whole: False, bytes held of 1,024: 512
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 accelerate==1.15.0 numpy
cd "$folder"
cat > script.py <<'PY'
import warnings

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def shown(weight):
    whole = not isinstance(weight, DTensor)
    held = weight if whole else weight.to_local()
    return f"weight whole: {whole}, bytes held of 1,024: {held.numel() * held.element_size():,}"


with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    accelerator = Accelerator(cpu=True, fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))
    model = nn.Linear(16, 16, bias=False)
    model, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
about = sum("fsdp" in str(warning.message).lower() or "shard" in str(warning.message).lower() for warning in found)
kind = accelerator.distributed_type.value
if accelerator.is_main_process:
    print(f"plugin: {kind}, {shown(next(model.parameters()))}, warnings: {about}", flush=True)
plain = fully_shard(nn.Linear(16, 16, bias=False), mesh=init_device_mesh("cpu", (2,)))
if accelerator.is_main_process:
    print(f"fully_shard: {shown(plain.weight)}", flush=True)
distributed.destroy_process_group()
PY
"$folder/venv/bin/torchrun" --standalone --nproc-per-node 2 script.py 2>errors | tee output || { cat errors; exit 1; }
if grep -i "fsdp" errors; then
  exit 1
fi
diff output - <<'EXPECTED'
plugin: MULTI_CPU, weight whole: True, bytes held of 1,024: 1,024, warnings: 0
fully_shard: weight whole: False, bytes held of 1,024: 512
EXPECTED
