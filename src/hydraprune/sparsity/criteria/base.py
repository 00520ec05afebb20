"""What is a weight worth? What every criterion answers."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern, ViewShape

# Half the distance between 1 and the next float32: what is smaller beside a sum is lost in it.
ROUNDING = 2.0**-24
# The horizon of a criterion to which every step matters, however long ago.
ALL_STEPS = sys.maxsize


class Criterion(ABC):
    """Saliency per weight, pooled to the pattern's cells, and how that of one step joins earlier ones.

    Frozen; what it remembers is handed in and out. `horizon` says which gradients can still matter
    to an update: n the last n steps before it, 0 none (the weights at the update suffice).
    """

    @property
    @abstractmethod
    def horizon(self) -> int:
        """How many steps before an update are scored."""

    @abstractmethod
    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        """The criterion's memory after one more step, per layer.

        Args:
            memory: as this method returned it last, which it may write in place; None at first.
            weights, gradients: per layer the view [rows, positions, columns], read only. `gradients`
                is None only when `horizon` is 0.
        """

    def scores(self, memory: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        """What an update ranks: per layer the pattern's cells, float32; the lowest go first.

        Here the memory itself. `weights` are those at the update; nothing is written in place.
        """
        return memory

    def memory_shape(self, shape: ViewShape, pattern: Pattern) -> torch.Size:
        """The shape of one layer's memory, for a view of `shape`."""
        return pattern.pool(torch.empty(shape, device="meta")).shape

    @property
    def revives(self) -> bool:
        """Whether a pruned unit may be worth more than a living one, and come back at an update."""
        return self.regrows

    @property
    def learned(self) -> bool:
        """Whether scores are learned from 0 on, so that a threshold on them has a meaning."""
        return False

    @property
    def regrows(self) -> bool:
        """Whether updates exchange living units for pruned ones."""
        return False

    def growth(self, memory: Tensor, pattern: Pattern) -> Tensor:
        """What each cell of one layer would be worth if it came back, where `regrows`."""
        return memory

    def exchanged(self, x: float) -> float:
        """The share of living units that an update at the share `x` of the window exchanges, where `regrows`."""
        return 0.0

    def check(self, patterns: Sequence[Pattern]) -> None:  # noqa: B027 most take every pattern
        """Refuse patterns that the criterion has no scores for.

        Raises:
            SparsityError: naming the pattern, and what would fit.
        """


def given(gradients: Sequence[Tensor] | None) -> Sequence[Tensor]:
    """The gradients that were given.

    Raises:
        SparsityError: there are none.
    """
    if gradients is None:
        raise SparsityError("this criterion scores gradients, and none was given")
    return gradients


def steps_remembered(decay: float) -> int:
    """After how many steps a share that shrinks by `decay` in each is lost in float32 rounding; 1 at least."""
    return 1 if decay == 0 else max(1, math.ceil(math.log(ROUNDING) / math.log(decay)))


def check_number(key: str, value: float, low: float, high: float, *, from_low: bool = False) -> None:
    """Refuse what is no number between `low` and `high`, both excluded; `low` itself fits where `from_low`.

    Raises:
        SparsityError: naming the key, the value and the range.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (low < value < high or (from_low and value == low)):
        return
    least = f"at least {low:g}" if from_low else f"above {low:g}"
    most = "" if high == math.inf else f" and below {high:g}"
    raise SparsityError(f"{key}={value}: must be a number {least}{most}")
