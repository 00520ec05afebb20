"""Memory of a process that prunes a sharded model, against one that holds it whole, and the time of a mask update.

    python benchmarks/sharded_memory.py --layers 12 --width 2048 --processes 1 2

Each process trains a stack of linear layers by AdamW and prunes it 4x1 to 90 % by snip_momentum. Printed, of the
process that has most: by how much resident memory grew while the pruner worked; peak resident memory above that before
the model was made (VmHWM), which PyTorch's own `fully_shard` dominates on gloo, where freed buffers are not given back;
and wall seconds of a mask update.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import distributed, nn

from hydraprune.sparsity import Block, Exp, Family, SnipMomentum, attach, custom

STEPS = 8


def resident(kind: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {kind} in /proc/self/status")


def train(rank: int, count: int, store: str, layers: int, width: int) -> None:
    """Train in one of several processes, and print the memory and the times of updates."""
    torch.set_num_threads(1)
    before = resident("VmRSS")
    # Made layer by layer, so that no process ever holds the whole model.
    if count > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        distributed.init_process_group("gloo", store=distributed.FileStore(store, count), rank=rank, world_size=count)
        mesh = init_device_mesh("cpu", (count,))
    model = nn.Sequential()
    for number in range(layers):
        torch.manual_seed(number)
        layer = nn.Linear(width, width, bias=False)
        model.append(fully_shard(layer, mesh=mesh) if count > 1 else layer)
    if count > 1:
        fully_shard(model, mesh=mesh)
    (plan,) = custom(Block(4, 1), 0.9, initial_sparsity=0).parts.values()
    ramp = Exp(warmup=1, frequency=2)
    (pruner,) = attach(model, {"4x1": plan.completed(SnipMomentum(), ramp)}, Family("plain"), STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pruner.project(0)
    updates, grown = [], 0
    for step in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, width)).square().mean().backward()
        was = resident("VmRSS")
        pruner.observe(step)
        grown += max(0, resident("VmRSS") - was)
        optimizer.step()
        begun, was = time.perf_counter(), resident("VmRSS")
        if pruner.project(step + 1, optimizer):
            updates.append(time.perf_counter() - begun)
        grown += max(0, resident("VmRSS") - was)
    print(resident("VmHWM") - before, statistics.median(updates), grown, pruner.zeros, flush=True)


def main() -> None:
    """Measure for some numbers of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank, count, store = arguments.rank
        train(int(rank), int(count), store, arguments.layers, arguments.width)
        return
    weights = arguments.layers * arguments.width**2
    print(f"{weights / 1e6:.1f} million weights, of which 90 % are pruned 4x1")
    first = None
    for count in arguments.processes:
        with tempfile.TemporaryDirectory() as folder:
            options = ["--layers", str(arguments.layers), "--width", str(arguments.width)]
            words = [
                [sys.executable, __file__, *options, "--rank", str(rank), str(count), f"{folder}/store"]
                for rank in range(count)
            ]
            started = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in words]
            found = [process.communicate()[0].split() for process in started]
        memory, grown = (max(int(each[i]) for each in found) for i in (0, 2))
        seconds = max(float(each[1]) for each in found)
        first = first or (memory, grown)
        assert len({each[3] for each in found}) == 1
        print(
            f"{count} processes, each: pruner {grown / 1e6:,.0f} MB ({grown / first[1]:.2f} of one), peak in all "
            f"{memory / 1e6:,.0f} MB ({memory / first[0]:.2f} of one); mask update {seconds:.3f} s"
        )


if __name__ == "__main__":
    main()
