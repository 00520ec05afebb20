"""The contract of a post-training method: the task that it is given, and the masks that it decides on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.methods import Method, MethodPlan, PrunerKinds, PrunerT, refuse_transition_and_regularizer
from hydraprune.sparsity.selection import Budget
from hydraprune.sparsity.validation import check_whole

# `calibration(n)` runs the model in evaluation mode over the first n calibration batches, the same at
# every call, and yields the loss of each, a scalar, with a graph where gradients are enabled.
Calibration = Callable[[int], Iterator[Tensor]]


@dataclass(frozen=True)
class PruningTask:
    """What is to be pruned.

    Args:
        structures: what may be pruned, in the model's order.
        pools: which of them (indices) compete, and how many of their units are pruned.
        empty: per structure the units that are zero and stay so, bool, flat [units]; they count, and
            are pruned first.
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
        """Structure -> how many of its units are pruned, where every structure is a pool of its own."""
        assert all(len(indices) == 1 for indices, _ in self.pools)
        return {indices[0]: budget.goal for indices, budget in self.pools}


@dataclass(frozen=True)
class MaskDecision:
    """What is pruned in one structure.

    Args:
        index: of the structure.
        pruned: bool, flat [units].
        keeps: per member a bool view, True = keep.
        weights: per member the view of its new weights; None: they stay as they are.
    """

    index: int
    pruned: Tensor
    keeps: tuple[Tensor, ...]
    weights: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class PostTraining(Method):
    """A choice of units made once, from what the model computes on a few batches.

    Args:
        batches: calibration batches.

    Raises:
        SparsityError: `batches` is not a positive whole number.
    """

    batches: int = 8

    def __post_init__(self) -> None:
        check_whole("batches", self.batches, 1)

    @property
    @abstractmethod
    def per_layer(self) -> bool:
        """Whether costs of different layers cannot be compared, so that every layer gets a target of its own."""

    @abstractmethod
    def check(self, structures: Sequence[Structure]) -> None:
        """Refuse patterns and layers that the method cannot judge.

        Raises:
            SparsityError: with the method, the pattern or layer, and what would fit.
        """

    def rounds(self, structures: Sequence[Structure]) -> list[list[int]]:
        """Indices of the structures in the order in which they are decided on; here all in one round.

        The decisions of a round are in force when the next round begins.
        """
        return [list(range(len(structures)))]

    @abstractmethod
    def decide(self, task: PruningTask, indices: Sequence[int]) -> list[MaskDecision]:
        """One decision for each structure of a round.

        Raises:
            SparsityError: a layer does not take part in the model's computation, or a value is not finite.
        """

    def check_plan(self, plan: MethodPlan) -> None:
        if plan.schedule is None or not plan.schedule.single:
            raise self.refusal("prunes once", cure="use scheduler=oneshot or at_start")
        refuse_transition_and_regularizer(plan, "pruner", self.name)

    def make_pruner(self, factory: PrunerKinds[PrunerT]) -> PrunerT:
        return factory.calibrated(self)

    def refusal(self, reason: str, cure: str | None = None, setting: tuple[str, object] | None = None) -> SparsityError:
        """An error of this method, `pruner=<name>: <reason>; <cure>`."""
        return SparsityError(reason, key="pruner", value=self.name, cure=cure, setting=setting)


def decision(index: int, pruned: Tensor, cells: Sequence[Tensor], structure: Structure) -> MaskDecision:
    """The decision to prune some units of a structure and leave its weights as they are.

    Args:
        pruned: bool, flat [units].
        cells: per member the scores, see `Pattern.mask`.
    """
    members = zip(structure.members, cells, strict=True)
    return MaskDecision(index, pruned, tuple(m.pattern.mask(pruned, own, m.weight.view_shape) for m, own in members))
