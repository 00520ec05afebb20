"""A pruner with a target, spread over pools of structures that compete."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hydraprune.sparsity import allocation
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.pruners.base import Pruner, Units
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import Budget, Selection

log = logging.getLogger(__name__)

# Curves are floats: one that begins at 0.3 may return 0.30000000000000004 there.
_ROUNDING = 1e-9


@dataclass
class Pool:
    """Structures that compete, their target and bounds, and how many of their units were zero before training.

    Args:
        sizes: what a unit of each structure counts for in `units` and `initial`, see `Units`.
    """

    indices: list[int]
    selection: Selection
    units: list[int]
    sizes: list[int]
    initial: int = 0

    def counted(self, pruned: Sequence[int]) -> list[int]:
        """Units of all structures of the pruner as counts of those of this pool."""
        return [pruned[i] * size for i, size in zip(self.indices, self.sizes, strict=True)]


class Budgeted(Pruner):
    """A pruner that prunes a number of units given by its plan and schedule. Arguments: see `Pruner`.

    Raises:
        SparsityError: the amounts are impossible.
    """

    # Whether units may count by their weights (`Selection.scope`).
    counts_weights: ClassVar[bool] = False

    def __init__(self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure]) -> None:
        super().__init__(name, plan, updates, structures)
        self._share = plan.pattern.share
        sizes = self._unit_sizes()
        layers = [
            allocation.LayerSize(s.units * size, s.shape, size) for s, size in zip(self.structures, sizes, strict=True)
        ]
        allocation.check(plan.selection, layers, self._share, plan.pattern.name)
        self._pools = [
            Pool(indices, selection, [layers[i].units for i in indices], [sizes[i] for i in indices])
            for indices, selection in allocation.allot(plan.selection, layers, self._share)
        ]
        self._refuse_initial()

    def _unit_sizes(self) -> list[int]:
        """What a unit of each structure counts for: 1, or its weights in multiples of what all have in common."""
        if self.plan.selection.scope != "weights":
            return [1] * len(self.structures)
        if not self.counts_weights:
            reason, cure = f"{type(self).__name__.lower()} pruning counts units", "use scope=global or scope=local"
            raise SparsityError(reason, key="scope", value="weights", cure=cure)
        weights = [structure.unit_zeros for structure in self.structures]
        return [each // math.gcd(*weights) for each in weights]

    def _refuse_initial(self) -> None:
        first, initial = self._pools[0], self.plan.selection.initial_sparsity
        begins = self._ratio(first, self.updates.start) <= (first.selection.initial_sparsity or 0.0) + _ROUNDING
        if initial and (self.updates.schedule.by_scores or not begins):
            raise SparsityError(
                "the schedule has no ramp that could begin there",
                key="initial_sparsity",
                value=initial,
                cure="leave it out, or use a scheduler that grows",
            )

    def begin(self) -> None:
        """Keep zeros that the weights have when training starts, if the schedule is to continue from there.

        Units that are zero count as pruned. Zeros of other units stay zero too, on top of the target, unless the
        method is one that brings weights back.
        """
        if self._begun:
            return
        self._refuse_replaced()
        self._begun = True
        if self.plan.selection.initial_sparsity is not None:
            return
        zeros = self.shards.total(sum(int((member.values == 0).sum()) for member in self._members))
        revives = self.plan.criterion is not None and self.plan.criterion.revives
        if zeros and not revives:
            self._fix_zeros()
        self._keep_zeros()
        for pool in self._pools:
            pool.initial = sum(pool.counted(self._pruned))
            goal = self._goal(pool)
            if pool.initial > goal:
                where = self.structures[pool.indices[0]].name if len(pool.indices) == 1 else "the model"
                raise SparsityError(
                    f"{where} has {pool.initial} of {sum(pool.units)} units at zero when training starts, more than "
                    f"the {goal} of the target",
                    key="target_sparsity",
                    value=f"{float(pool.selection.target_sparsity):.4g}",
                    cure="raise the target, keep the zeros with pattern=lock, or give them up with "
                    "pattern.initial_sparsity=0",
                    pruner=self.name,
                )
            self._refuse_beyond_bounds(pool)
        if zeros:
            self._report_zeros(zeros, revives)

    def _report_zeros(self, zeros: int, revives: bool) -> None:
        """Log what becomes of the zeros that the weights have when training starts."""
        units = sum(count * s.unit_zeros for count, s in zip(self._pruned, self.structures, strict=True))
        target = f"{self.target_sparsity:.4g}"
        share = f"{zeros / self.total:.1%}"
        had = f"pruner {self.name}: {zeros:,} of {self.total:,} weights ({share}) are zero when training starts"
        if revives:
            method = self.plan.criterion.name if self.plan.criterion else ""
            log.warning("%s; %s may bring them back, and the target is %s", had, method, target)
        elif zeros > units:
            log.warning(
                "%s and stay zero, %s of them outside of pruned %s units; these come on top of the target, %s. With "
                "pattern.initial_sparsity=0 all zeros are given up instead",
                had,
                f"{zeros - units:,}",
                self.plan.pattern.name,
                target,
            )

    def _refuse_beyond_bounds(self, pool: Pool) -> None:
        """Refuse zeros beyond cap or floor, some of which would be lost."""
        budget = pool.selection.budget(pool.units, self._share, sizes=pool.sizes)
        beyond = 0
        counted = pool.counted(self._pruned)
        for i, pruned, floor, cap in zip(pool.indices, counted, budget.floors, budget.caps, strict=True):
            beyond += max(0, pruned - floor)
            if pruned > cap:
                raise SparsityError(
                    f"{self.structures[i].name} has {pruned} units at zero when training starts, more than "
                    f"the {cap} that it allows there",
                    key="cap",
                    value=pool.selection.cap,
                    cure="raise the cap, or give up zeros with pattern.initial_sparsity=0",
                    pruner=self.name,
                )
        if beyond > budget.spare and any(budget.floors):
            raise SparsityError(
                f"layers have {beyond} units at zero beyond it when training starts, and the target leaves "
                f"{budget.spare} beyond all floors",
                key="floor",
                value=pool.selection.floor,
                cure="lower the floor, or give up zeros with pattern.initial_sparsity=0",
                pruner=self.name,
            )

    def _ratio(self, pool: Pool, update: int) -> float:
        """Element sparsity of a pool at an update, by the schedule."""
        target, initial = float(pool.selection.target_sparsity), pool.selection.initial_sparsity
        if initial is None:
            initial = float(pool.initial * self._share / sum(pool.units))
        return self.updates.sparsity(update, target, initial)

    def _budget(self, pool: Pool, ratio: float | None) -> Budget:
        """How much is pruned in a pool; `ratio`: see `Selection.budget`."""
        budget = pool.selection.budget(pool.units, self._share, ratio, pool.sizes)
        return replace(budget, count=max(budget.count, pool.initial))

    def _goal(self, pool: Pool) -> int:
        return pool.selection.budget(pool.units, self._share).goal

    @property
    def pools(self) -> list[tuple[list[Structure], Units]]:
        return [
            (
                [self.structures[i] for i in pool.indices],
                Units(
                    # See `choose_sized`.
                    max(0, self._goal(pool) - (2 if pool.selection.floor else 1) * (max(pool.sizes) - 1)),
                    sum(pool.counted(self._pruned)),
                    sum(pool.units),
                    tuple(pool.sizes),
                ),
            )
            for pool in self._pools
        ]

    def state_dict(self) -> dict[str, Any]:
        """Also where the schedule began."""
        return {**super().state_dict(), "initial": [pool.initial for pool in self._pools]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state.get("initial", self._pools)) != len(self._pools):
            raise self._state_check.foreign(
                f"it has {len(state['initial'])} pools of layers, and this pruner {len(self._pools)}"
            )
        super().load_state_dict(state)
        for pool, initial in zip(self._pools, state["initial"], strict=True):
            pool.initial = initial


def threshold_refusal() -> SparsityError:
    """The error of a threshold on scores that are not learned."""
    return SparsityError(
        "is for scores that are learned and start at 0",
        key="scheduler",
        value="threshold",
        cure="use pruner=soft_movement, or another scheduler",
    )
