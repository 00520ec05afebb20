#!/usr/bin/env bash
# transformers 5.24.0 saves the base of rotary positions where transformers 4.46.3 does not look, which takes the default
# without a word: the same checkpoint computes other outputs.
#
# A Llama with rope_theta 500000, as Llama 3 has, is saved by 5.24.0: config.json holds rope_parameters alone. 4.46.3
# loads it, reports nothing, and uses 10000. With rope_theta written beside it, the outputs are equal; 5.24.0 reads such
# a file as before.
#
# Output seen:
#   4.46.3: base 10000, the same outputs: False
#   4.46.3, rope_theta beside it: base 500000, the same outputs: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 5.24.0 4.46.3; do
  python -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version" 'numpy<2.5'
done
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home" TRANSFORMERS_VERBOSITY=error
"$folder/5.24.0/bin/python" - <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
torch.manual_seed(0)
sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})).eval()
for weight in model.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.3)
model.save_pretrained("model")
torch.save(model(torch.arange(40)[None]).logits.detach(), "logits.pt")
PY
cat > load.py <<'PY'
import json
import sys

import torch
from transformers import LlamaForCausalLM

if len(sys.argv) > 1:
    config = json.load(open("model/config.json"))
    json.dump({**config, "rope_theta": config["rope_parameters"]["rope_theta"]}, open("model/config.json", "w"))
model = LlamaForCausalLM.from_pretrained("model").eval()
same = torch.allclose(model(torch.arange(40)[None]).logits, torch.load("logits.pt"), atol=1e-4)
beside = ", rope_theta beside it" * (len(sys.argv) > 1)
print(f"4.46.3{beside}: base {model.config.rope_theta:.0f}, the same outputs: {same}")
PY
{ "$folder/4.46.3/bin/python" load.py; "$folder/4.46.3/bin/python" load.py beside; } 2>/dev/null | tee output
diff output - <<'EXPECTED'
4.46.3: base 10000, the same outputs: False
4.46.3, rope_theta beside it: base 500000, the same outputs: True
EXPECTED
