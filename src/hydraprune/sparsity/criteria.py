"""What is a weight worth? Scores from weights and gradients; the cheapest are pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hydraprune.sparsity.errors import SparsityError


class Criterion(Protocol):
    """Saliency per weight, and how the pooled saliency of one step joins that of earlier ones.

    `horizon` says which gradients can still matter to an update: None means every step before
    it, n the last n steps, 0 none (the weights at the update suffice).
    """

    @property
    def horizon(self) -> int | None: ...

    def saliency(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """Non-negative, shaped like `weight`. `gradient` is None only when `horizon` is 0."""

    def remember(self, memory: Tensor | None, cells: Tensor) -> Tensor:
        """The criterion's memory after one more step; it owns `memory` and may write into it."""


def _gradient(gradient: Tensor | None) -> Tensor:
    if gradient is None:
        raise SparsityError("this criterion scores gradients, and none was given")
    return gradient


@dataclass(frozen=True)
class Magnitude:
    """|w| at the update. Han et al. 2015, arXiv:1506.02626."""

    @property
    def horizon(self) -> int | None:
        return 0

    def saliency(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return weight.abs()

    def remember(self, memory: Tensor | None, cells: Tensor) -> Tensor:
        return cells


@dataclass(frozen=True)
class Gradient:
    """|g| of the step before the update. Not monotone: a pruned weight may return, starting from 0."""

    @property
    def horizon(self) -> int | None:
        return 1

    def saliency(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return _gradient(gradient).abs()

    def remember(self, memory: Tensor | None, cells: Tensor) -> Tensor:
        return cells


@dataclass(frozen=True)
class Snip:
    """|w * g| of the step before the update. Lee et al. 2019, arXiv:1810.02340."""

    @property
    def horizon(self) -> int | None:
        return 1

    def saliency(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return (weight * _gradient(gradient)).abs_()

    def remember(self, memory: Tensor | None, cells: Tensor) -> Tensor:
        return cells


@dataclass(frozen=True)
class SnipMomentum:
    """S <- decay * S + |w * g| over every step so far, from S = 0.

    The recurrence of the published results (Neural Compressor 2.6): `decay` 0.9 on the old score
    and 1.0 on the new term, so a score remembers about 10 steps.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise SparsityError(f"decay={self.decay}: must be at least 0 and below 1")

    @property
    def horizon(self) -> int | None:
        return None

    def saliency(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return (weight * _gradient(gradient)).abs_()

    def remember(self, memory: Tensor | None, cells: Tensor) -> Tensor:
        return cells if memory is None else memory.mul_(self.decay).add_(cells)


@dataclass(frozen=True)
class Unscored:
    """The criterion of a run that prunes nothing. A plan that has it is refused."""

    @property
    def horizon(self) -> int | None:
        return 0

    def saliency(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        raise SparsityError("pruner=none scores nothing")

    def remember(self, memory: Tensor | None, cells: Tensor) -> Tensor:
        return cells
