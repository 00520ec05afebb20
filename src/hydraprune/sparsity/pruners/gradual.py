"""Pruning while training: a criterion scores, a schedule asks, a selection chooses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.progressive import AtOnce
from hydraprune.sparsity.pruners.budgeted import NOT_LEARNED, Pool, Targeted
from hydraprune.sparsity.pruners.progressive_state import Parts
from hydraprune.sparsity.pruners.regrowth import exchange, forget
from hydraprune.sparsity.pruners.score_state import Memory
from hydraprune.sparsity.regularizers import Unregularized
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import Budget, choose

log = logging.getLogger(__name__)


class Gradual(Targeted):
    """Carries out a plan whose criterion scores step by step. Arguments as of `Pruner`.

    Raises:
        SparsityError: the amounts are impossible, a criterion that scores gradients is asked to prune
            before the first step, or parts of the plan do not go together.
    """

    def __init__(self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure]) -> None:
        super().__init__(name, plan, updates, structures)
        if not isinstance(plan.criterion, Criterion):
            raise SparsityError(f"{name}: the plan has no criterion that scores step by step")
        self.criterion: Criterion = plan.criterion
        self.criterion.check([member.pattern for member in self._members])
        self._regularizer = plan.regularizer or Unregularized()
        self._regularizer.check(self.structures)
        self._memory = Memory(self.criterion, self._members, name)
        self._parts = Parts(plan.transition or AtOnce(), updates, self._memory)
        self._refuse_early()

    def _refuse_early(self) -> None:
        self._refuse_schedule()
        least = 1 if self.criterion.horizon else 0
        first = self._parts.choice(self.updates.start)
        asked = any(self._ratio(pool, self.updates.start) > 0 for pool in self._pools)
        if first >= least or not (asked or self.updates.schedule.by_scores):
            return
        need = self.updates.start - first + least
        seen = f", when {type(self.criterion).__name__} has seen no gradient" if least else ""
        raise SparsityError(
            f"warmup={self.updates.start}: pruner {self.name} would prune before the first step{seen}; give a warm-up "
            f"of at least {need} step{'s' if need > 1 else ''}"
        )

    def _refuse_schedule(self) -> None:
        if self.updates.schedule.by_scores and not self.criterion.learned:
            raise SparsityError(NOT_LEARNED)
        if not self.updates.count and not isinstance(self._regularizer, Unregularized):
            raise SparsityError("regularizer=group_lasso: acts between updates, and there is one; use regularizer=none")

    @torch.no_grad()
    def observe(self, step: int) -> None:
        coming = self._parts.next_choice(step + 1)
        self._memory.observe(step, coming)
        self._parts.observe(step, coming)

    @torch.no_grad()
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        self.begin()
        if self.updates.start < step <= self.updates.last + 1:
            self._regularizer.shrink(self.structures, optimizer)
        # Before an update too: the optimizer has just moved masked weights off zero, and a criterion
        # that reads weights must see them as the forward pass did.
        self._masks.apply()
        due = self._parts.due(step)
        if due is None:
            return False
        update, part = due
        compares = self._parts.many or self.criterion.regrows
        before = [self._masks.whole(place) for place in range(len(self._members))] if compares else []
        if part == 1:
            self._update(step, update)
            competing = [[place for i in pool.indices for place in self._places[i]] for pool in self._pools]
            self._parts.plan(before, self._masks, competing, step)
        self._parts.hold(part, self._masks)
        if self.criterion.regrows and optimizer is not None:
            self._forget(before, optimizer)
        self._masks.apply()
        return True

    def _forget(self, before: Sequence[Tensor | None], optimizer: Optimizer) -> None:
        for place, (member, old) in enumerate(zip(self._members, before, strict=True)):
            new = self._masks.whole(place)
            if old is not None and new is not None:
                forget(optimizer, member.weight.parameter, new & ~old)

    def _update(self, step: int, update: int) -> None:
        """Choose the units of the update due at `update`, by the scores of `step`."""
        final = update == self.updates.last
        ratios = [None if final else self._ratio(pool, update) for pool in self._pools]
        by_scores = self.updates.schedule.by_scores and not final
        if not by_scores and not any(self._pruned) and all(ratio is not None and ratio <= 0 for ratio in ratios):
            return
        if final and self.plan.selection.target_sparsity == 0:
            return
        if not final and self._memory.kept is None and self.criterion.horizon and not by_scores:
            budgets = [self._budget(pool, ratio) for pool, ratio in zip(self._pools, ratios, strict=True)]
            if sum(budget.count for budget in budgets) == sum(self._pruned):
                return  # a sparse model that starts where its schedule does: there is nothing to choose
        cells = self._memory.scores(step)
        if not by_scores and not any(bool(part.any()) for part in cells):
            log.warning(
                "pruner %s, step %d: every score is 0, so that the first units go, whatever they are worth; is there a "
                "gradient yet? A student that still equals its teacher has none: warm up longer, or score by magnitude",
                self.name,
                step,
            )
        if self._parts.many and not self.criterion.revives:
            cells = self._with_pruned_last(cells)
        for pool, ratio in zip(self._pools, ratios, strict=True):
            self._choose(pool, self._budget(pool, ratio), cells, step, update)

    def _with_pruned_last(self, cells: list[Tensor]) -> list[Tensor]:
        """The same scores, those of pruned units below all others.

        What went in parts learned on for some steps after it was chosen, and may be worth more by now.
        """
        least = torch.stack([part.min() for part in cells]).min() - 1
        result = []
        for member, part, mask in zip(self._members, cells, map(self._masks.whole, range(len(cells))), strict=True):
            if mask is not None:
                living = member.pattern.pool(member.weight.view(mask).float()) > 0
                part = torch.where(living.reshape(part.shape), part, least)
            result.append(part)
        return result

    def _choose(self, pool: Pool, budget: Budget, cells: list[Tensor], step: int, update: int) -> None:
        capped = zip(pool.indices, budget.caps, strict=True)
        settled = [self._pruned[i] == cap > 0 and not self.criterion.regrows for i, cap in capped]
        costs = [
            self._settled_cost(i) if at_cap else self._cost(i, cells)
            for i, at_cap in zip(pool.indices, settled, strict=True)
        ]
        if self.updates.schedule.by_scores and update != self.updates.last:
            budget = self._by_scores(pool, costs, budget)
        try:
            chosen = choose(costs, budget)
        except SparsityError as error:
            raise SparsityError(f"pruner {self.name}, step {step}: {error}") from None
        growth = self._memory.growth()
        if growth is not None:
            window = max(1, self.updates.last - self.updates.start)
            share = self.criterion.exchanged((update - self.updates.start) / window)
            growths = [self._cost(i, growth) for i in pool.indices]
            chosen = [exchange(*layer, share) for layer in zip(chosen, costs, growths, strict=True)]
        counts = torch.stack([pruned.sum() for pruned in chosen]).tolist()
        for i, at_cap, pruned, count in zip(pool.indices, settled, chosen, counts, strict=True):
            if not at_cap:
                self._prune(i, pruned, cells, int(count))

    def _by_scores(self, pool: Pool, costs: Sequence[Tensor], budget: Budget) -> Budget:
        """As many as the schedule's threshold lets go, between those that went already and the goal."""
        found = sum(int(self.updates.schedule.passes(cost).sum()) for cost in costs)
        least = sum(self._pruned[i] for i in pool.indices)
        return replace(budget, count=max(least, min(found, budget.goal, sum(budget.caps))))

    def _cost(self, index: int, cells: Sequence[Tensor]) -> Tensor:
        return self.structures[index].cost([cells[place] for place in self._places[index]])

    def _settled_cost(self, index: int) -> Tensor:
        """Costs that repeat the choice in force: a layer at its cap keeps its mask.

        As in the published tool. Only a criterion that revives weights can tell; what is left of
        such a layer is so little that shuffling it does more harm than good.
        """
        masks = {self._members[place].weight.name: self._masks.whole(place) for place in self._places[index]}
        gone = self.structures[index].empty({name: mask for name, mask in masks.items() if mask is not None})
        costs = torch.full(gone.shape, torch.finfo(torch.float32).max, device=gone.device)
        return costs.masked_fill_(gone, -torch.inf)

    @property
    def zeros(self) -> int:
        partial = self._parts.zeros
        return super().zeros if partial is None else partial

    def state_dict(self) -> dict[str, Any]:
        """Also the criterion's memory and the parts of an update under way."""
        return {
            **super().state_dict(),
            "memory": self._memory.state(),
            "parts": self._parts.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        memory = state["memory"]
        self._fits("memory", memory, self._memory.shapes())
        if memory and len(memory) != len(self._members):
            raise SparsityError(f"state of pruner {self.name}: remembers {len(memory)} weights of {len(self._members)}")
        super().load_state_dict(state)
        self._memory.load(memory)
        self._parts.load(state["parts"])
        if self._parts.under_way:
            # Some of their blocks are partly zero.
            for place, member in enumerate(self._members):
                self._masks.hold(place, state["masks"][member.weight.name].to(member.weight.parameter.device))
