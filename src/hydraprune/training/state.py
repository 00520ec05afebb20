"""What a training needs of others, and the values that it takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hydraprune.data.batches import Batches
from hydraprune.sparsity import Pruner
from hydraprune.training.distillation import Distiller
from hydraprune.training.settings import Settings
from hydraprune.training.teachers import Teacher


class Tracker(Protocol):
    """Takes note of what happens. `step` counts finished optimizer steps."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...


Score = Callable[[Sequence[float], Sequence[float]], dict[str, float]]


@dataclass(frozen=True)
class Run:
    """All that `fit` works with, made and checked.

    Args:
        evaluations: evaluation sets by name, the main one first.
        score: (predictions, references) -> metric -> value.
        headline: the metric by which epochs are compared.
    """

    model: nn.Module
    distiller: Distiller
    teacher: Teacher
    pruners: tuple[Pruner, ...]
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    accelerator: Accelerator
    settings: Settings
    train: Batches
    evaluations: Mapping[str, Batches]
    score: Score
    headline: str
    tracker: Tracker

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return self.settings.steps_per_epoch(len(self.train.data))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.settings.epochs * self.steps_per_epoch


@dataclass
class Progress:
    """How far a training is, and what came of it.

    Args:
        step: finished optimizer steps.
        evaluated: the step after which the last evaluation was.
        skipped: steps that were passed over, since their loss or gradients were not finite.
        losses: of the steps since the last line of metrics, scalars on the device.
        final: metric -> value of the last evaluation.
        best: the same of the best epoch among those at full target, and `epoch`, counted from 1.
    """

    step: int = 0
    evaluated: int = 0
    skipped: int = 0
    losses: list[Tensor] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
