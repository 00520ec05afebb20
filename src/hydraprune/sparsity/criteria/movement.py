"""Which weights move away from zero? Movement pruning: Sanh et al. 2020, arXiv:2005.07683."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.criteria.base import ALL_STEPS, Criterion, check_number, given
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Block, Pattern


@dataclass(frozen=True)
class Movement(Criterion):
    """S <- S - w * g over all steps since training began, from S = 0; signed, the lowest go first.

    Hard movement pruning. There S is learned through a straight-through mask, by gradient steps
    whose constant size does not change the ranking. A block's score is the mean or the sum of
    those of its weights, as the pattern's `reduce` says.

    Other than in the paper a masked weight is exactly zero, where there it lives on behind the
    mask: w * g is zero, so its score stands still. It returns when living ones fall below it, and
    then starts from zero.
    """

    @property
    def revives(self) -> bool:
        return True

    @property
    def horizon(self) -> int:
        return ALL_STEPS

    def check(self, patterns: Sequence[Pattern]) -> None:
        """Refuse `reduce=max`: the largest of sums is not the sum of the largest.

        Raises:
            SparsityError: naming what would fit.
        """
        if any(isinstance(pattern, Block) and pattern.reduce == "max" for pattern in patterns):
            raise SparsityError("reduce=max: movement is summed over steps and blocks; use mean or sum")

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        moved = _towards_zero(weights, given(gradients), pattern)
        if memory is None:
            torch._foreach_neg_(moved)
            return moved
        torch._foreach_sub_(memory, moved)
        return memory


@dataclass(frozen=True)
class SoftMovement(Criterion):
    """S <- S - rate * w * g - rate * penalty * sigmoid'(S) from S = 0; the gradient steps of learned scores.

    Soft movement pruning, for scheduler=threshold, by which a unit goes when sigmoid(S) <= tau. The
    penalty is the gradient of penalty * sigmoid(S), so every score sinks but those that the loss
    holds up. Deviations as of `Movement`, and plain gradient steps where the paper has Adam. Under
    other schedules units are ranked by S like any score.

    A unit that the loss is indifferent to passes tau=0.1 after about 13.3 / (rate * penalty) steps:
    with the defaults 440, so that trainings of a thousand steps and more reach their target before
    the last update. At that rate w * g spreads most scores by one or two around it: the model `tiny`
    on `toy` (4x1, 1,000 steps) went from 0.05 at step 100 over 0.26 at 300 to 0.87 at 500. Give
    shorter trainings a larger penalty, and models whose gradients are smaller a larger rate.

    Args:
        rate: the step size, above 0.
        penalty: beside the loss, at least 0. 0 leaves how much goes to the loss alone.

    Raises:
        SparsityError: one of them is out of range.
    """

    rate: float = 500.0
    penalty: float = 6e-5

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, math.inf)
        check_number("penalty", self.penalty, 0, math.inf, from_low=True)

    @property
    def learned(self) -> bool:
        return True

    @property
    def revives(self) -> bool:
        return True

    @property
    def horizon(self) -> int:
        return ALL_STEPS

    def check(self, patterns: Sequence[Pattern]) -> None:
        Movement().check(patterns)

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        moved = _towards_zero(weights, given(gradients), pattern)
        kept = [torch.zeros_like(cells) for cells in moved] if memory is None else memory
        for scores, cells in zip(kept, moved, strict=True):
            passed = scores.sigmoid()
            # The old score enters the slope, so it is read before anything is taken off.
            slope = passed.mul_(1 - passed)
            scores.sub_(cells.add_(slope, alpha=self.penalty), alpha=self.rate)
        return kept


def _towards_zero(weights: Sequence[Tensor], gradients: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
    """Per layer the cells of w * g, signed: above zero where a gradient step moves weights towards zero."""
    pairs = zip(weights, gradients, strict=True)
    return [pattern.pool(weight.float() * gradient.float()) for weight, gradient in pairs]
