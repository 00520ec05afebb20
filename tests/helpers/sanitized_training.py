"""Run as a script like sanitized_kernels.py: random layers in training, in sanitized kernels.

LD_PRELOAD=libasan.so:libubsan.so python sanitized_training.py FOLDER ROUNDS FLAG...
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from sanitized_kernels import SANITIZERS
from trained_layer_helpers import Sizes, case

from hydraprune.kernels.training import LayerShape, TrainedLayer, compile_training


def main(folder: str, rounds: str, *flags: str) -> None:
    functions = compile_training(Path(folder), (*flags, *SANITIZERS))
    for seed in range(int(rounds)):
        choose = random.Random(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(choose.choice([1, 2, 3]))
        activation = choose.choice(["gelu", "gelu_tanh", "relu"])
        sizes = [4 * choose.randint(1, most) for most in (20, 9, 35)]
        wide = Sizes(sizes[0], choose.randint(1, 4), sizes[1], sizes[2], activation)
        lengths = [choose.choice([1, 15, 16, 17, 64, 65, choose.randint(1, 190)]) for _ in range(choose.randint(1, 6))]
        density, rate = choose.choice([0.0, 0.1, 0.5, 1.0]), choose.choice([0.0, 0.1])
        one = case(wide, lengths, density, [rate] * 3, choose.randint(0, 2))
        layer = TrainedLayer(functions, LayerShape(wide.heads, activation, (1e-12, 1e-5)), one.parameters, one.live)
        inputs = [one.x, *one.parameters.flat()]
        frozen = [tensor for tensor in inputs if choose.random() < 0.2]
        for tensor in frozen:
            tensor.requires_grad_(False)
        y = layer(one.x, one.lengths, one.dropouts)
        assert y.isfinite().all()
        if y.requires_grad:
            y.backward(one.dy)
        assert all(tensor.grad.isfinite().all() for tensor in inputs if tensor.grad is not None)
    print(f"{rounds} rounds, training")


if __name__ == "__main__":
    main(*sys.argv[1:])
