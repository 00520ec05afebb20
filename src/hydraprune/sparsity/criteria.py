"""What is a weight worth? Scores from weights and gradients; the cheapest are pruned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.products import accumulate

# Half the distance between 1 and the next float32: what is smaller beside a sum is lost in it.
ROUNDING = 2.0**-24


class Criterion(Protocol):
    """Saliency per weight, pooled to the pattern's cells, and how that of one step joins earlier ones.

    `horizon` says which gradients can still matter to an update: n the last n steps before it, 0
    none (the weights at the update suffice).
    """

    @property
    def horizon(self) -> int: ...

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        """The criterion's memory after one more step: per layer the pattern's cells, float32, not negative.

        Args:
            memory: as this method returned it last, which it may write in place; None at first.
            weights, gradients: per layer the view [rows, positions, columns], read only. `gradients`
                is None only when `horizon` is 0.
        """


def _given(gradients: Sequence[Tensor] | None) -> Sequence[Tensor]:
    if gradients is None:
        raise SparsityError("this criterion scores gradients, and none was given")
    return gradients


@dataclass(frozen=True)
class Magnitude:
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
class Gradient:
    """|g| of the step before the update. Not monotone: a pruned weight may return, starting from 0."""

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
        return [pattern.pool(gradient.abs().float()) for gradient in _given(gradients)]


@dataclass(frozen=True)
class Snip:
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
        return accumulate(None, weights, _given(gradients), pattern, 0.0)


@dataclass(frozen=True)
class SnipMomentum:
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
        return 1 if self.decay == 0 else max(1, math.ceil(math.log(ROUNDING) / math.log(self.decay)))

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        return accumulate(memory, weights, _given(gradients), pattern, self.decay)


@dataclass(frozen=True)
class Unscored:
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
