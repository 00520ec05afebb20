"""How does the learning rate move? Factories for `torch.optim.lr_scheduler`."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hydraprune.sparsity import Duration, SparsityError, in_steps


def _warming(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _rising(warmup: Duration, steps: int, steps_per_epoch: int) -> int:
    rising = in_steps(warmup, steps_per_epoch, "warmup")
    if rising > steps > 0:  # without a step there is no rate
        raise SparsityError(
            f"{rising} steps are longer than the training's {steps}", key="warmup", value=warmup, cure="shorten it"
        )
    return rising


def constant(optimizer: Optimizer, steps: int, steps_per_epoch: int, warmup: Duration = 0) -> LambdaLR:
    """The optimizer's own rate, after a linear warm-up."""
    rising = _rising(warmup, steps, steps_per_epoch)
    return LambdaLR(optimizer, lambda step: _warming(step, rising))


def linear(optimizer: Optimizer, steps: int, steps_per_epoch: int, warmup: Duration = 0) -> LambdaLR:
    """Linear decay to 0 at the last of `steps`, after a linear warm-up."""
    rising = _rising(warmup, steps, steps_per_epoch)

    def factor(step: int) -> float:
        return _warming(step, rising) if step < rising else max(0.0, (steps - step) / max(1, steps - rising))

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, steps: int, steps_per_epoch: int, warmup: Duration = 0) -> LambdaLR:
    """Half a cosine down to 0 at the last of `steps`, after a linear warm-up."""
    rising = _rising(warmup, steps, steps_per_epoch)

    def factor(step: int) -> float:
        if step < rising:
            return _warming(step, rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    return LambdaLR(optimizer, factor)
