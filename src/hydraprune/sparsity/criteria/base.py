"""The contract of a criterion: what each weight is worth, and how the scores of several steps combine."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.methods import Method, PrunerKinds, PrunerT
from hydraprune.sparsity.patterns import Pattern, ViewShape

# Half the distance between 1 and the next float32: a term smaller than this share of a sum is rounded away.
ROUNDING = 2.0**-24
# The horizon of a criterion to which every step matters, however long ago.
ALL_STEPS = sys.maxsize


class Criterion(Method):
    """A score for each weight; units whose scores are lowest are pruned. Immutable.

    A new criterion overrides `score`, and sets `uses_gradient` and `decay` where they differ. The base class pools
    scores to the pattern's cells and adds those of several steps up: S <- decay * S + score, from S = 0. A criterion
    that keeps another state overrides `update_state`, and `state_shape` and `scores` with it.
    """

    # Whether `score` reads the gradient. If not, only the weights at an update are scored.
    uses_gradient: bool = True
    # Whether the gradient of a weight that is 0 can change a score: if not, training need not compute it.
    reads_pruned_gradients: bool = True
    # What an earlier step's score is multiplied by at each later step: 0 keeps the last step alone, 1 every step.
    decay: float = 0.0
    # Whether scores are learned from 0 on, so that `scheduler=threshold` applies to them.
    learned: bool = False
    # Whether updates exchange kept units for pruned ones, by `growth` and `exchanged`.
    regrows: bool = False

    def __init_subclass__(cls) -> None:
        """A class that scores in its own way has to say by itself that it does not read gradients of pruned weights."""
        super().__init_subclass__()
        own = {"score", "update_state", "scores", "growth"} & vars(cls).keys()
        if own and "reads_pruned_gradients" not in vars(cls):
            cls.reads_pruned_gradients = True

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """What each weight is worth at one step, [rows, positions, columns]; the lowest are pruned first.

        Args:
            weight, gradient: float32 views [rows, positions, columns], read only. Where `uses_gradient` is False,
                `gradient` is empty.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither a score nor an update_state")

    @property
    def horizon(self) -> int:
        """How many of the last steps before an update can matter to it; 0: the weights at the update suffice."""
        return steps_remembered(self.decay) if self.uses_gradient else 0

    def update_state(
        self,
        state: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        """The score state after one more step, per layer.

        Args:
            state: what this method returned last of these layers, which may be written in place; None at first.
                Layers come in groups: those without a gradient in a step are left out of it.
            weights, gradients: per layer the view [rows, positions, columns], read only. `gradients`
                is None only when `horizon` is 0.
            pattern: that of all these layers.
        """
        if self.uses_gradient:
            pairs = zip(weights, given(gradients), strict=True)
            cells = [pattern.to_cells(self.score(w.float(), g.float())) for w, g in pairs]
        else:
            cells = [pattern.to_cells(self.score(w.float(), w.new_empty(0))) for w in weights]
        return add_decayed(state, cells, self.decay)

    def state_shape(self, shape: ViewShape, pattern: Pattern) -> torch.Size:
        """The shape of one layer's state, for a view of `shape`."""
        return pattern.to_cells(torch.empty(shape, device="meta")).shape

    def scores(self, state: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        """What an update ranks: per layer the pattern's cells, float32; here the state itself.

        `weights` are those at the update; nothing is written in place.
        """
        return state

    def growth(self, state: Tensor, pattern: Pattern) -> Tensor:
        """What each cell of one layer would be worth if it came back, where `regrows`."""
        return state

    def exchanged(self, x: float) -> float:
        """The share of kept units that an update at the share `x` of the window exchanges, where `regrows`."""
        return 0.0

    def check(self, patterns: Sequence[Pattern]) -> None:
        """Refuse patterns that the criterion cannot score.

        Raises:
            SparsityError: with the pattern, and what would fit.
        """

    def make_pruner(self, factory: PrunerKinds[PrunerT]) -> PrunerT:
        return factory.gradual(self)


def add_decayed(state: list[Tensor] | None, cells: list[Tensor], decay: float) -> list[Tensor]:
    """`decay` * state + cells, per layer, in place; the cells alone without a state."""
    if state is None or decay == 0:
        return cells
    if decay != 1:
        torch._foreach_mul_(state, decay)
    torch._foreach_add_(state, cells)
    return state


def given(gradients: Sequence[Tensor] | None) -> Sequence[Tensor]:
    """The gradients that a criterion was given.

    Raises:
        SparsityError: it was given none.
    """
    if gradients is None:
        raise SparsityError("this criterion scores gradients, and none was given")
    return gradients


def steps_remembered(decay: float) -> int:
    """After how many steps a term that is multiplied by `decay` in each is lost in float32 rounding; at least 1."""
    if decay >= 1:
        return ALL_STEPS
    return 1 if decay == 0 else max(1, math.ceil(math.log(ROUNDING) / math.log(decay)))
