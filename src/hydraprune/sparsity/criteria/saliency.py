"""Scores from weights and gradients of single steps, and their decaying sum; the cheapest are pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, given, steps_remembered
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.saliency_kernels import accumulate


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| at the update. Han et al. 2015, arXiv:1506.02626."""

    @property
    def horizon(self) -> int:
        return 0

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        return [pattern.pool(weight.abs().float()) for weight in weights]


@dataclass(frozen=True)
class Gradient(Criterion):
    """|g| of the step before the update. Not monotone: a pruned weight may return, starting from 0."""

    @property
    def revives(self) -> bool:
        return True

    @property
    def horizon(self) -> int:
        return 1

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        return [pattern.pool(gradient.abs().float()) for gradient in given(gradients)]


@dataclass(frozen=True)
class Snip(Criterion):
    """|w * g| of the step before the update. Lee et al. 2019, arXiv:1810.02340."""

    @property
    def horizon(self) -> int:
        return 1

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        return accumulate(None, weights, given(gradients), pattern, 0.0)


@dataclass(frozen=True)
class SnipMomentum(Criterion):
    """S <- decay * S + |w * g| over the steps so far, from S = 0.

    The recurrence of the published results (Neural Compressor 2.6): `decay` 0.9 on the old score
    and 1.0 on the new term, so a score remembers about 10 steps. The share of a step that lies n
    steps before an update is decay^n; where that is below float32 rounding the step is not scored.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise SparsityError(f"decay={self.decay}: must be at least 0 and below 1")

    @property
    def horizon(self) -> int:
        return steps_remembered(self.decay)

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        return accumulate(memory, weights, given(gradients), pattern, self.decay)


@dataclass(frozen=True)
class Unscored(Criterion):
    """The criterion of a run that prunes nothing. A plan that has it is refused."""

    @property
    def horizon(self) -> int:
        return 0

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        raise SparsityError("pruner=none scores nothing")
