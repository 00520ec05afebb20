"""The objects of one training: model, optimizer, pruners, teacher, data and settings, built and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Protocol

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hydraprune.data.batches import Batch, Batches
from hydraprune.sparsity import Pruner
from hydraprune.training.cuda_graphs import Backward, Capture, CudaGraphs
from hydraprune.training.distillation import Distiller
from hydraprune.training.processes import Processes
from hydraprune.training.settings import Settings
from hydraprune.training.sparse_steps import SparseSteps
from hydraprune.training.teachers import Teacher

# (predictions, references) -> metric -> value.
Score = Callable[[Sequence[float], Sequence[float]], dict[str, float]]


class MetricLogger(Protocol):
    """Records the metrics of a training; every tracker is one."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values after `step` finished optimizer steps."""


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that `fit` works with.

    Args:
        pruners: each updates the masks of some of the model's weights.
        evaluations: evaluation sets by name, the main one first.
        score: computes the metrics of one evaluation set.
        headline: the metric by which epochs are compared.
        sparse_steps: switches the model's layers to sparse steps.
        capture: captures forward and backward pass as CUDA graphs; None: every kernel is launched by itself.
        processes: among which the examples of every step are divided.
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
    tracker: MetricLogger
    sparse_steps: SparseSteps = field(default_factory=lambda: SparseSteps(None))
    capture: Capture | None = None
    processes: Processes = field(default_factory=Processes)

    @cached_property
    def backward(self) -> Backward:
        """Computes a batch: adds the gradients of its loss, divided by a number, and returns that loss."""

        def backward(batch: Batch, teacher_outputs: Tensor | None, divisor: float | Tensor) -> Tensor:
            with self.accelerator.autocast():
                loss = self.distiller.loss(self.model, batch, teacher_outputs) / divisor
            self.accelerator.backward(loss)
            return loss.detach()

        if self.capture is None:
            return backward
        rows = self.settings.batch_size * self.train.data.head.group
        return CudaGraphs(self.model, backward, rows, self.capture)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return self.settings.steps_per_epoch(self.train.data.groups)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.settings.epochs * self.steps_per_epoch

    def batches_from(self, step: int) -> Iterator[list[Batch]]:
        """The batches of every step from `step` to the end of its epoch."""
        epoch, done = divmod(step, self.steps_per_epoch)
        size = self.settings.accumulation
        batches = self.train.epoch(epoch, done * size)
        while group := list(islice(batches, size)):
            yield group
