"""What every post-training method is given, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.selection import Budget

# `calibration(n)` runs the model in evaluation mode over the first n calibration batches, the same at
# every call, and yields the loss of each, a scalar, with a graph where gradients are enabled.
Calibration = Callable[[int], Iterator[Tensor]]


@dataclass(frozen=True)
class Orders:
    """What a method is asked for.

    Args:
        structures: what may be pruned, in the model's order.
        pools: which of them (indices) compete, and how many of their units go.
        empty: per structure the units that are to stay zero since they are, bool, flat [units]; they
            count, and go first.
        modules: parameter name -> the module that holds the parameter.
        calibration: runs the model.
    """

    structures: tuple[Structure, ...]
    pools: tuple[tuple[list[int], Budget], ...]
    empty: tuple[Tensor, ...]
    modules: Mapping[str, nn.Module]
    calibration: Calibration

    @property
    def goals(self) -> dict[int, int]:
        """Structure -> how many of its units go, where every structure is a pool of its own."""
        assert all(len(indices) == 1 for indices, _ in self.pools)
        return {indices[0]: budget.goal for indices, budget in self.pools}


@dataclass(frozen=True)
class Choice:
    """What goes in one structure.

    Args:
        index: of the structure.
        pruned: bool, flat [units].
        keeps: per member a bool view, True = keep.
        weights: per member the view of its new weights; None: they stay what they are.
    """

    index: int
    pruned: Tensor
    keeps: tuple[Tensor, ...]
    weights: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class PostTraining(ABC):
    """A choice of units made once, from what the model does with a few batches.

    Args:
        batches: calibration batches.

    Raises:
        SparsityError: `batches` is not a positive whole number.
    """

    batches: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.batches, bool) or not isinstance(self.batches, int) or self.batches < 1:
            raise SparsityError(f"batches={self.batches}: must be a whole number of at least 1")

    @property
    @abstractmethod
    def name(self) -> str:
        """The word for it, as in `pruner=wanda`."""

    @property
    @abstractmethod
    def per_layer(self) -> bool:
        """Whether costs of different layers cannot be compared, so that every layer gets a target of its own."""

    @abstractmethod
    def check(self, structures: Sequence[Structure]) -> None:
        """Refuse patterns and layers that the method cannot judge.

        Raises:
            SparsityError: naming the method, the pattern or layer, and what would fit.
        """

    @abstractmethod
    def choices(self, orders: Orders) -> Iterator[Choice]:
        """One choice for every structure. Each is in force before the next is asked for.

        Raises:
            SparsityError: a layer has no part in the model's work, or a figure is not finite.
        """


def chosen(index: int, pruned: Tensor, cells: Sequence[Tensor], members: Sequence[Member]) -> Choice:
    """The choice of these units, their weights left as they are. `cells` as of `Pattern.mask`, for every member."""
    keeps = [m.pattern.mask(pruned, part, m.weight.view_shape) for m, part in zip(members, cells, strict=True)]
    return Choice(index, pruned, tuple(keeps))
