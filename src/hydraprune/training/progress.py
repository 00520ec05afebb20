"""The progress of a training: step counters, recent losses, and scores so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Progress:
    """The mutable state of a training, beside the weights and the optimizer's state.

    Args:
        step: finished optimizer steps.
        evaluated: the step after which the last evaluation ran.
        skipped: steps skipped because their loss or gradients were not finite.
        losses: one scalar per step since the last log line, on the device.
        final: metric -> value of the last evaluation.
        best: the same for the best epoch among those at the target sparsity, with `epoch`, counted from 1.
    """

    step: int = 0
    evaluated: int = 0
    skipped: int = 0
    losses: list[Tensor] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
