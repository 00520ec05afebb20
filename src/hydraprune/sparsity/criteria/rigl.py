"""Rigging the lottery (RigL): kept units exchanged for pruned ones. Evci et al. 2020, arXiv:1911.11134."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.validation import check_number


@dataclass(frozen=True)
class Rigl(Criterion):
    """Units with the lowest |w| at the update are pruned, those with the highest |g| of the step before come back.

    An update at the share x of the window exchanges fraction / 2 * (1 + cos(pi * x)) of a layer's
    kept units; those that come back start from zero. For scheduler=hold, which is at the target from
    its first update; a schedule that grows makes it gradual pruning with regrowth (GraNet, Liu et al.
    2021, arXiv:2106.10404). Unlike in the paper, training begins dense and the first mask is by
    magnitude, not random.

    Args:
        fraction: of kept units, exchanged at the first update; above 0 and below 1.

    Raises:
        SparsityError: it is not.
    """

    revives = True
    regrows = True

    fraction: float = 0.3

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, 0, 1)

    def check(self, patterns: Sequence[Pattern]) -> None:
        """Refuse N:M patterns: each group loses as much as every other, so no group can come back.

        Raises:
            SparsityError: with the pattern and what would fit.
        """
        for pattern in patterns:
            if pattern.scores_weights:
                raise SparsityError(
                    f"exchanges whole units, and those of {pattern.name} are groups, all pruned alike",
                    key="pruner",
                    value="rigl",
                    cure="use a block or channel pattern, or pruner=sr_ste, which changes masks within groups",
                )

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient.abs()

    def scores(self, state: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        return [pattern.to_cells(weight.abs().float()) for weight in weights]

    def exchanged(self, x: float) -> float:
        return self.fraction / 2 * (1 + math.cos(math.pi * x))
