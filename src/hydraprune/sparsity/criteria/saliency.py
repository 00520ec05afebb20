"""Scores from the weights and gradients of single steps, and their decaying sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, given
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.saliency_kernels import accumulate
from hydraprune.sparsity.validation import check_number


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| at the update. Han et al. 2015, arXiv:1506.02626."""

    uses_gradient = False
    reads_pruned_gradients = False

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return weight.abs()


@dataclass(frozen=True)
class Gradient(Criterion):
    """|g| of the step before the update. Not monotone: a pruned weight may return, starting from 0."""

    revives = True

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient.abs()


@dataclass(frozen=True)
class Snip(Criterion):
    """|w * g| of the step before the update. Lee et al. 2019, arXiv:1810.02340."""

    reads_pruned_gradients = False

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs_()

    def update_state(
        self,
        state: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        # The same sum by a faster way: fused, compiled where there is a compiler.
        return accumulate(state if self.decay else None, weights, given(gradients), pattern, self.decay)


@dataclass(frozen=True)
class SnipMomentum(Snip):
    """S <- decay * S + |w * g| over the steps so far, from S = 0.

    The recurrence of the published results (Neural Compressor 2.6): `decay` 0.9 on the old score
    and 1.0 on the new term, so a score remembers about 10 steps. The share of a step that lies n
    steps before an update is decay^n; where that is below float32 rounding the step is not scored.

    Args:
        decay: at least 0 and below 1.

    Raises:
        SparsityError: it is not.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0, 1, from_low=True)


@dataclass(frozen=True)
class Unscored(Criterion):
    """The criterion of a run that prunes nothing. A plan that has it is refused."""

    prunes = False
    uses_gradient = False

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        raise SparsityError("scores nothing", key="pruner", value="none")
