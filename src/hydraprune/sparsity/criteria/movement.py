"""Movement pruning: weights are scored by how far they move away from zero. Sanh et al. 2020, arXiv:2005.07683."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, given
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.validation import check_number


@dataclass(frozen=True)
class Movement(Criterion):
    """S <- S - w * g over all steps since training began, from S = 0; signed, the lowest go first.

    Hard movement pruning. In the paper S is learned through a straight-through mask, by gradient
    steps whose constant size does not change the ranking. A block's score is the mean or the sum of
    those of its weights, by the pattern's `reduce`.

    In the paper a masked weight keeps its value behind the mask; here it is exactly zero, so w * g is
    zero and its score does not change. It returns when weights that are kept score lower, and then
    starts from zero.
    """

    decay = 1.0
    revives = True

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).neg_()

    def check(self, patterns: Sequence[Pattern]) -> None:
        """Refuse `reduce=max`: the largest of sums is not the sum of the largest.

        Raises:
            SparsityError: with what would fit.
        """
        if any(pattern.reduce == "max" and not pattern.scores_weights for pattern in patterns):
            raise SparsityError(
                "movement is summed over steps and blocks", key="reduce", value="max", cure="use mean or sum"
            )


@dataclass(frozen=True)
class SoftMovement(Criterion):
    """S <- S - rate * w * g - rate * penalty * sigmoid'(S) from S = 0; the gradient steps of learned scores.

    Soft movement pruning, for scheduler=threshold, which prunes a unit when sigmoid(S) <= tau. The
    penalty is the gradient of penalty * sigmoid(S), so every score sinks but those that the loss
    holds up. It differs from the paper as `Movement` does, and takes plain gradient steps where the
    paper uses Adam. Under other schedules units are ranked by S like any score.

    A unit that does not affect the loss passes tau=0.1 after about 13.3 / (rate * penalty) steps:
    with the defaults 440, so that trainings of a thousand steps and more reach their target before
    the last update. At that rate w * g spreads most scores by one or two around it: the model `tiny`
    on `toy` (4x1, 1,000 steps) went from 0.05 at step 100 over 0.26 at 300 to 0.87 at 500. Give
    shorter trainings a larger penalty, and models whose gradients are smaller a larger rate.

    Args:
        rate: the step size, above 0.
        penalty: at least 0; with 0 the loss alone decides how much is pruned.

    Raises:
        SparsityError: one of them is out of range.
    """

    decay = 1.0
    revives = True
    learned = True

    rate: float = 500.0
    penalty: float = 6e-5

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, math.inf)
        check_number("penalty", self.penalty, 0, math.inf, from_low=True)

    def check(self, patterns: Sequence[Pattern]) -> None:
        Movement().check(patterns)

    def update_state(
        self,
        state: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        pairs = zip(weights, given(gradients), strict=True)
        # Above zero where a gradient step moves weights towards zero.
        moved = [pattern.to_cells(weight.float() * gradient.float()) for weight, gradient in pairs]
        learned = [cells.new_zeros(cells.shape) for cells in moved] if state is None else state
        for scores, cells in zip(learned, moved, strict=True):
            passed = scores.sigmoid()
            # The slope is that at the old score, so it is computed before the score changes.
            slope = passed.mul_(1 - passed)
            scores.sub_(cells.add_(slope, alpha=self.penalty), alpha=self.rate)
        return learned
