"""Rigging the lottery: pruned units exchanged for living ones. Evci et al. 2020, arXiv:1911.11134."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, check_number, given
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import NofM, Pattern


@dataclass(frozen=True)
class Rigl(Criterion):
    """|w| at the update says what goes, |g| of the step before it what comes back, from zero.

    An update at the share x of the window exchanges fraction / 2 * (1 + cos(pi * x)) of a layer's
    living units. For scheduler=hold, which is at the target from its first update; a schedule that
    grows makes it gradual pruning with regrowth (GraNet, Liu et al. 2021, arXiv:2106.10404).
    Other than in the paper training begins dense, and the first mask is by magnitude, not random.

    Args:
        fraction: of living units, exchanged at the first update; above 0 and below 1.

    Raises:
        SparsityError: it is not.
    """

    fraction: float = 0.3

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, 0, 1)

    @property
    def horizon(self) -> int:
        return 1

    def check(self, patterns: Sequence[Pattern]) -> None:
        """Refuse N:M patterns: each group loses as much as every other, so no group can come back.

        Raises:
            SparsityError: naming the pattern and what would fit.
        """
        for pattern in patterns:
            if isinstance(pattern, NofM):
                raise SparsityError(
                    f"pruner=rigl: exchanges whole units, and those of {pattern.name} are groups, all pruned alike; "
                    f"use a block or channel pattern, or pruner=sr_ste, which changes masks within groups"
                )

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        return [pattern.pool(gradient.abs().float()) for gradient in given(gradients)]

    def scores(self, memory: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        return [pattern.pool(weight.abs().float()) for weight in weights]

    @property
    def regrows(self) -> bool:
        return True

    def exchanged(self, x: float) -> float:
        return self.fraction / 2 * (1 + math.cos(math.pi * x))
