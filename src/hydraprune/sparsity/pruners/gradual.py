"""Pruning while training: a criterion scores units, a schedule sets how many are pruned, a selection picks them."""

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
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.progressive import AtOnce
from hydraprune.sparsity.pruners.budgeted import Budgeted, Pool, threshold_refusal
from hydraprune.sparsity.pruners.progressive_state import ProgressiveState
from hydraprune.sparsity.pruners.regrowth import exchange, reset_state
from hydraprune.sparsity.pruners.score_state import ScoreState
from hydraprune.sparsity.regularizers import Unregularized
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import Budget, choose_sized

log = logging.getLogger(__name__)


class Gradual(Budgeted):
    """Prunes step by step by the scores of a criterion.

    Args:
        name, plan, updates, structures: see `Pruner`.
        criterion: the plan's.

    Raises:
        SparsityError: the amounts are impossible, a criterion that scores gradients would have to
            prune before the first step, or criterion, schedule and transition do not suit each other.
    """

    counts_weights = True

    def __init__(
        self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure], criterion: Criterion
    ) -> None:
        super().__init__(name, plan, updates, structures)
        self.criterion = criterion
        criterion.check([member.pattern for member in self._members])
        self._regularizer = plan.regularizer or Unregularized()
        self._regularizer.check(self.structures)
        self._scores = ScoreState(criterion, self._members, name, self.shards)
        self._progressive = ProgressiveState(plan.transition or AtOnce(), updates, self._scores)
        self._told_of_moments = False  # that those of an optimizer are not reset
        self._refuse_schedule()
        self._refuse_early()

    def _refuse_early(self) -> None:
        least = 1 if self.criterion.horizon else 0
        first = self._progressive.choice(self.updates.start)
        asked = any(self._ratio(pool, self.updates.start) > 0 for pool in self._pools)
        if first >= least or not (asked or self.updates.schedule.by_scores):
            return
        need = self.updates.start - first + least
        seen = f", when {type(self.criterion).__name__} has seen no gradient" if least else ""
        raise SparsityError(
            f"pruner {self.name} would prune before the first step{seen}",
            key="scheduler.warmup",
            value=self.updates.start,
            cure=f"give a warm-up of at least {need} step{'s' if need > 1 else ''}",
        )

    def _refuse_schedule(self) -> None:
        if self.updates.schedule.by_scores and not self.criterion.learned:
            raise threshold_refusal()
        if not self.updates.count and self._regularizer.acts:
            raise SparsityError(
                "acts between updates, and there is one",
                key="regularizer",
                value=self._regularizer.name,
                cure="use regularizer=none",
            )

    @torch.no_grad()
    def observe(self, step: int) -> None:
        self._refuse_replaced()
        self._check_order()
        next_choice = self._progressive.next_choice(step + 1)
        self._scores.observe(step, next_choice)
        self._progressive.observe(step, next_choice)

    @torch.no_grad()
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        self.begin()
        if self.updates.start < step <= self.updates.last + 1:
            self._regularizer.shrink(self.structures, optimizer)
        # Before an update too: the optimizer has just moved masked weights off zero, and a criterion
        # that reads weights must see them as the forward pass did.
        self._masks.apply()
        due = self._progressive.due(step)
        if due is None:
            return False
        update, part = due
        self._refuse_moved()
        compares = self._progressive.many or self.criterion.regrows
        before = [self._masks.whole(i) for i in range(len(self._members))] if compares else []
        if part == 1:
            self._update(step, update)
            competing = [[i for structure in pool.indices for i in self._indices[structure]] for pool in self._pools]
            self._progressive.plan(before, self._masks, competing, step)
        self._progressive.hold(part, self._masks)
        if self.criterion.regrows:
            self._reset_returned(before, optimizer)
        self._masks.apply()
        return True

    def _reset_returned(self, before: Sequence[Tensor | None], optimizer: Optimizer | None) -> None:
        """Reset the optimizer's state of weights that were masked before and are kept now."""
        known = set() if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not self._told_of_moments and not all(id(weight.parameter) in known for weight in self.weights):
            what = "none was given" if optimizer is None else "another was given"
            log.warning(
                "pruner %s: moments of weights that come back are not reset, since they are not in the optimizer: %s; "
                "call project(step, optimizer)",
                self.name,
                what,
            )
            self._told_of_moments = True
        if optimizer is None:
            return
        for i, (member, old) in enumerate(zip(self._members, before, strict=True)):
            new = self._masks.whole(i)
            if old is not None and new is not None:
                reset_state(optimizer, member.weight.parameter, new & ~old)

    def _update(self, step: int, update: int) -> None:
        """Choose the units of the update due at `update`, by the scores of `step`."""
        final = update == self.updates.last
        ratios = [None if final else self._ratio(pool, update) for pool in self._pools]
        by_scores = self.updates.schedule.by_scores and not final
        if not by_scores and not any(self._pruned) and all(ratio is not None and ratio <= 0 for ratio in ratios):
            return
        if final and self.plan.selection.target_sparsity == 0:
            return
        if not final and self._scores.tensors is None and self.criterion.horizon and not by_scores:
            budgets = [self._budget(pool, ratio) for pool, ratio in zip(self._pools, ratios, strict=True)]
            if sum(budget.count for budget in budgets) == sum(sum(pool.counted(self._pruned)) for pool in self._pools):
                return  # a sparse model that starts where its schedule does: there is nothing to choose
        cells = self._scores.scores(step)
        if not by_scores and not bool(self.shards.any(torch.stack([scores.any() for scores in cells]).any())):
            log.warning(
                "pruner %s, step %d: all scores are 0, so units are pruned in index order; is the gradient zero? It is "
                "while a student still equals its teacher: warm up longer, or score by magnitude",
                self.name,
                step,
            )
        if self._progressive.many and not self.criterion.revives:
            # What is pruned in parts trains on for some steps after it was chosen, and may score higher by now.
            cells = self._below_others(cells, [self._masks.whole(i) for i in range(len(self._members))])
        growth = self._scores.growth()
        for pool, ratio in zip(self._pools, ratios, strict=True):
            self._choose(pool, self._budget(pool, ratio), cells, growth, step, update)

    def _below_others(self, cells: list[Tensor], masks: Sequence[Tensor | None]) -> list[Tensor]:
        """The same scores, those of cells that a mask zeroes below all others.

        Args:
            masks: of the members, True = keep.
        """
        least = self.shards.least(cells) - 1
        result = []
        for member, scores, mask in zip(self._members, cells, masks, strict=True):
            if mask is not None:
                kept = member.pattern.to_cells(member.weight.view(mask).float()) > 0
                scores = torch.where(kept.reshape(scores.shape), scores, least)
            result.append(scores)
        return result

    def _choose(
        self, pool: Pool, budget: Budget, cells: list[Tensor], growth: list[Tensor] | None, step: int, update: int
    ) -> None:
        capped = zip(pool.counted(self._pruned), pool.sizes, budget.caps, strict=True)
        settled = [pruned > cap - size and pruned > 0 and not self.criterion.regrows for pruned, size, cap in capped]
        costs = [
            self._settled_cost(i) if at_cap else self._cost(i, cells)
            for i, at_cap in zip(pool.indices, settled, strict=True)
        ]
        self._refuse_infinite([cost for cost, at_cap in zip(costs, settled, strict=True) if not at_cap], step)
        # A unit that is zero and stays so counts as pruned: another in its place would be one too many.
        gone = [self._zero_from_the_start(i) for i in pool.indices]
        costs = [cost if of is None else cost.masked_fill(of, -torch.inf) for cost, of in zip(costs, gone, strict=True)]
        if self.updates.schedule.by_scores and update != self.updates.last:
            costs, budget = self._by_scores(pool, costs, budget)
        try:
            chosen = choose_sized(costs, pool.sizes, budget, self.shards)
        except SparsityError as error:
            raise SparsityError(f"pruner {self.name}, step {step}: {error.reason}", cure=error.cure) from None
        if growth is not None:
            window = max(1, self.updates.last - self.updates.start)
            share = self.criterion.exchanged((update - self.updates.start) / window)
            growths = [self._cost(i, growth) for i in pool.indices]
            chosen = [exchange(*layer, share) for layer in zip(chosen, costs, growths, strict=True)]
        counts = self.shards.summed(torch.stack([pruned.sum() for pruned in chosen])).tolist()
        # Nor is a weight of a group zeroed beside one that is zero anyway.
        cells = self._below_others(cells, self._masks.fixed) if self.kept_zeros else cells
        for i, at_cap, pruned, count in zip(pool.indices, settled, chosen, counts, strict=True):
            if not at_cap:
                self._prune(i, pruned, cells, int(count))

    def _refuse_infinite(self, costs: Sequence[Tensor], step: int) -> None:
        """Refuse a score of minus infinity; `choose` takes that for a unit to prune in any case, and refuses others."""
        if costs and not bool(self.shards.all(torch.stack([cost.min() for cost in costs]).min() > -torch.inf)):
            raise SparsityError(
                f"pruner {self.name}, step {step}: a score is not finite",
                cure="look for a NaN or infinite gradient or weight, and lower the learning rate",
            )

    def _by_scores(self, pool: Pool, costs: list[Tensor], budget: Budget) -> tuple[list[Tensor], Budget]:
        """Costs and budget by which those units go that pass the schedule's threshold, and no others.

        Units beyond the cap of their layer stay, and so do those that the floors of other layers reserve. Units that
        are pruned stay pruned; where some of them do not pass (any more), they cost least.
        """
        passing = [self.updates.schedule.passes(cost) for cost in costs]
        pruned = sum(pool.counted(self._pruned))
        found = _allowed(_counted(passing, pool), budget)
        if found < pruned:
            masked = [self._masked_units(i) for i in pool.indices]
            costs = [cost.masked_fill(units, -torch.inf) for cost, units in zip(costs, masked, strict=True)]
            both = [units | gone for units, gone in zip(passing, masked, strict=True)]
            found = max(pruned, _allowed(_counted(both, pool), budget))
        return costs, replace(budget, count=min(found, budget.goal, sum(budget.caps)))

    def _cost(self, index: int, cells: Sequence[Tensor]) -> Tensor:
        return self.structures[index].cost([cells[i] for i in self._indices[index]])

    def _settled_cost(self, index: int) -> Tensor:
        """Costs that repeat the choice in force: a layer at its cap keeps its mask.

        As in the published tool. It makes a difference only for a criterion that revives weights; what is
        left of such a layer is so little that exchanging it does more harm than good.
        """
        pruned = self._masked_units(index)
        costs = torch.full(pruned.shape, torch.finfo(torch.float32).max, device=pruned.device)
        return costs.masked_fill_(pruned, -torch.inf)

    @property
    def needs_pruned_gradients(self) -> bool:
        return self.criterion.reads_pruned_gradients or self.criterion.revives

    @property
    def members(self) -> tuple[Member, ...]:
        """Its weights with the pattern of each."""
        return tuple(self._members)

    @property
    def prunes_in_parts(self) -> bool:
        """Whether a block goes in several steps."""
        return self._progressive.many

    def score_shapes(self) -> dict[str, torch.Size]:
        """Parameter name -> the shape of what the criterion keeps of what this process holds of it."""
        return self._scores.shapes()

    @property
    def zeros(self) -> int:
        partial = self._progressive.zeros
        return super().zeros if partial is None or self.kept_zeros else partial

    def state_dict(self) -> dict[str, Any]:
        """Also the score state and the parts of an update under way.

        The keys are those of states that earlier versions saved.
        """
        return {
            **super().state_dict(),
            "memory": self._scores.state(),
            "intermittent": self._scores.intermittent,
            "parts": self._progressive.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._state_check.refuse_other_plan(state, list(self.state_dict()))
        scores = state["memory"]
        self._state_check.refuse_other_shapes("scores", scores, self._scores.shapes())
        intermittent = bool(state.get("intermittent", False))
        if scores and len(scores) != len(self._members) and not intermittent:
            raise self._state_check.foreign(f"it scores {len(scores)} weights of {len(self._members)}")
        super().load_state_dict(state)
        self._scores.load(scores, intermittent)
        self._progressive.load(state["parts"], intermittent)
        if self._progressive.under_way:
            # Some blocks are partly zero.
            for i, member in enumerate(self._members):
                self._masks.hold(i, state["masks"][member.weight.name].to(member.weight.parameter.device))


def _counted(units: Sequence[Tensor], pool: Pool) -> list[int]:
    """How many units of each structure are marked, by their sizes."""
    return [int(marked.sum()) * size for marked, size in zip(units, pool.sizes, strict=True)]


def _allowed(counts: Sequence[int], budget: Budget) -> int:
    """How many units may go of those found in each layer, within the caps and with what the floors reserve left."""
    capped = [min(count, cap) for count, cap in zip(counts, budget.caps, strict=True)]
    within = [min(count, floor) for count, floor in zip(capped, budget.floors, strict=True)]
    return sum(within) + min(sum(capped) - sum(within), budget.spare)
