"""Learning-rate schedules: factories for `torch.optim.lr_scheduler`."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hydraprune.sparsity import Duration, SparsityError, in_steps


def _warmup_factor(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _warmup_steps(warmup: Duration, steps: int, steps_per_epoch: int) -> int:
    found = in_steps(warmup, steps_per_epoch, "warmup")
    if found > steps > 0:  # a training without steps has no warm-up
        reason = f"{found} steps are longer than the training's {steps}"
        raise SparsityError(reason, key="warmup", value=warmup, cure="shorten it")
    return found


def constant(optimizer: Optimizer, steps: int, steps_per_epoch: int, warmup: Duration = 0) -> LambdaLR:
    """The optimizer's own learning rate, after a linear warm-up.

    Args:
        steps: optimizer steps of the training.
        warmup: steps, or epochs as `1ep`.

    Raises:
        SparsityError: `warmup` is not a duration, or longer than the training.
    """
    rising = _warmup_steps(warmup, steps, steps_per_epoch)
    return LambdaLR(optimizer, lambda step: _warmup_factor(step, rising))


def linear(optimizer: Optimizer, steps: int, steps_per_epoch: int, warmup: Duration = 0) -> LambdaLR:
    """Linear decay to 0 at the last step, after a linear warm-up. Arguments as for `constant`."""
    rising = _warmup_steps(warmup, steps, steps_per_epoch)

    def factor(step: int) -> float:
        return _warmup_factor(step, rising) if step < rising else max(0.0, (steps - step) / max(1, steps - rising))

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, steps: int, steps_per_epoch: int, warmup: Duration = 0) -> LambdaLR:
    """Half a cosine down to 0 at the last step, after a linear warm-up. Arguments as for `constant`."""
    rising = _warmup_steps(warmup, steps, steps_per_epoch)

    def factor(step: int) -> float:
        if step < rising:
            return _warmup_factor(step, rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    return LambdaLR(optimizer, factor)
