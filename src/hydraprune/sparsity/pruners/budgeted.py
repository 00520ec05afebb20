"""What is asked of which layers? A pruner with a target, spread over pools of structures that compete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydraprune.sparsity import allocation
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.progressive import AtOnce
from hydraprune.sparsity.pruners.base import Pruner, Units
from hydraprune.sparsity.regularizers import Unregularized
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import Budget, Selection

NOT_LEARNED = (
    "scheduler=threshold: is for scores that are learned and start at 0; use pruner=soft_movement, or another scheduler"
)


# Curves are floats: one that begins at 0.3 may say 0.30000000000000004 there.
_ROUNDING = 1e-9


@dataclass
class Pool:
    """Structures that compete, what is asked of them, and how many of their units were zero before training."""

    indices: list[int]
    selection: Selection
    units: list[int]
    initial: int = 0


class Targeted(Pruner):
    """The part of a pruner that knows its amounts. Arguments as of `Pruner`.

    Raises:
        SparsityError: the amounts are impossible.
    """

    def __init__(self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure]) -> None:
        super().__init__(name, plan, updates, structures)
        self._share = plan.pattern.share
        extents = [allocation.Extent(s.units, s.sides) for s in self.structures]
        allocation.check(plan.selection, extents, self._share, plan.pattern.name)
        self._pools = [
            Pool(indices, selection, [extents[i].units for i in indices])
            for indices, selection in allocation.allot(plan.selection, extents, self._share)
        ]
        self._refuse_initial()

    def _refuse_initial(self) -> None:
        first, initial = self._pools[0], self.plan.selection.initial_sparsity
        begins = self._ratio(first, self.updates.start) <= (first.selection.initial_sparsity or 0.0) + _ROUNDING
        if initial and (self.updates.schedule.by_scores or not begins):
            raise SparsityError(
                f"initial_sparsity={initial}: the schedule has no ramp that could begin there; leave it out, or use a "
                f"scheduler that grows"
            )

    def begin(self) -> None:
        """Hold what is zero by whole units when training starts, if the schedule is to go on from there."""
        if self._begun:
            return
        self._begun = True
        if self.plan.selection.initial_sparsity is not None:
            return
        self._keep_zeros()
        for pool in self._pools:
            pool.initial = sum(self._pruned[i] for i in pool.indices)
            goal = self._goal(pool)
            if pool.initial > goal:
                where = self.structures[pool.indices[0]].name if len(pool.indices) == 1 else "the model"
                self._refuse(
                    f"target_sparsity={float(pool.selection.target_sparsity):.4g}: {where} has {pool.initial} of "
                    f"{sum(pool.units)} units at zero when it starts, more than the {goal} asked for; raise the "
                    f"target, keep its zeros with pattern=lock, or let them go with initial_sparsity=0"
                )
            self._refuse_beyond_bounds(pool)

    def _refuse_beyond_bounds(self, pool: Pool) -> None:
        """Zeros that are there must fit within cap and floor, or some would be lost."""
        budget = pool.selection.budget(pool.units, self._share)
        beyond = 0
        for i, floor, cap in zip(pool.indices, budget.floors, budget.caps, strict=True):
            beyond += max(0, self._pruned[i] - floor)
            if self._pruned[i] > cap:
                self._refuse(
                    f"cap={pool.selection.cap}: {self.structures[i].name} has {self._pruned[i]} units at zero when "
                    f"training starts, more than the {cap} that may go there; raise the cap, or let zeros go with "
                    f"initial_sparsity=0"
                )
        if beyond > budget.spare and any(budget.floors):
            self._refuse(
                f"floor={pool.selection.floor}: layers have {beyond} units at zero beyond it when training starts, and "
                f"the target leaves {budget.spare} beyond all floors; lower the floor, or let zeros go with "
                f"initial_sparsity=0"
            )

    def _refuse(self, message: str) -> None:
        error = SparsityError(message)
        error.pruner = self.name
        raise error

    def _ratio(self, pool: Pool, update: int) -> float:
        """Element sparsity that the schedule asks of a pool."""
        target, initial = float(pool.selection.target_sparsity), pool.selection.initial_sparsity
        if initial is None:
            initial = float(pool.initial * self._share / sum(pool.units))
        return self.updates.sparsity(update, target, initial)

    def _budget(self, pool: Pool, ratio: float | None) -> Budget:
        """What goes in a pool; `ratio` as of `Selection.budget`."""
        budget = pool.selection.budget(pool.units, self._share, ratio)
        return replace(budget, count=max(budget.count, pool.initial))

    def _goal(self, pool: Pool) -> int:
        return pool.selection.budget(pool.units, self._share).goal

    @property
    def pools(self) -> list[tuple[list[Structure], Units]]:
        return [
            (
                [self.structures[i] for i in pool.indices],
                Units(self._goal(pool), sum(self._pruned[i] for i in pool.indices), sum(pool.units)),
            )
            for pool in self._pools
        ]

    def state_dict(self) -> dict[str, Any]:
        """Also where the schedule began."""
        return {**super().state_dict(), "initial": [pool.initial for pool in self._pools]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for pool, initial in zip(self._pools, state["initial"], strict=True):
            pool.initial = initial


def refuse_parts(method: str, plan: Plan) -> None:
    """Refuse parts of a plan that a method makes nothing of.

    Raises:
        SparsityError: naming the key, and what fits.
    """
    if not isinstance(plan.transition or AtOnce(), AtOnce):
        raise SparsityError(f"{method}: its masks have no parts; use progressive=none")
    if not isinstance(plan.regularizer or Unregularized(), Unregularized):
        raise SparsityError(f"{method}: has no update that units could shrink towards; use regularizer=none")
