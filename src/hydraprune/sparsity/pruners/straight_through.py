"""Sparse forward, dense memory: weights that are zero in the forward pass go on learning beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.criteria.saliency import Magnitude
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.methods import SrSte
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.pruners.budgeted import NOT_LEARNED, Targeted, refuse_parts
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import choose


class StraightThrough(Targeted):
    """Carries out a plan by straight-through estimation. Arguments as of `Pruner`.

    The parameters hold the sparse weights whenever the caller has the turn, and the dense ones only
    between `observe` and `project`, while the optimizer makes its step.

    Raises:
        SparsityError: the amounts are impossible.
    """

    def __init__(self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure]) -> None:
        super().__init__(name, plan, updates, structures)
        assert isinstance(plan.criterion, SrSte)
        self.criterion: SrSte = plan.criterion
        refuse_parts("pruner=sr_ste", plan)
        if updates.schedule.by_scores:
            raise SparsityError(NOT_LEARNED)
        self._dense: list[Tensor] | None = None  # the weights beside the masks, while these may change

    @torch.no_grad()
    def observe(self, step: int) -> None:
        if self._dense is None:
            return
        for place, (member, dense) in enumerate(zip(self._members, self._dense, strict=True)):
            parameter, mask = member.weight.parameter, self._masks.whole(place)
            if parameter.grad is None:
                raise SparsityError(
                    f"{member.weight.name} gets no gradient; exclude it from pruner {self.name} or unfreeze it"
                )
            parameter.copy_(dense)
            if mask is not None:
                parameter.grad.add_(dense * ~mask, alpha=self.criterion.decay)

    @torch.no_grad()
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        self.begin()
        inside = self.updates.start <= step <= self.updates.last
        if inside:
            self._choose(step)
            self._dense = None if step == self.updates.last else [w.parameter.detach().clone() for w in self.weights]
        self._masks.apply()
        return inside

    def _choose(self, step: int) -> None:
        """The cheapest units by magnitude, as many as the schedule asked for last."""
        update = self.updates.start + (step - self.updates.start) // self.updates.frequency * self.updates.frequency
        magnitudes = [
            Magnitude().remember(None, [m.weight.view(m.weight.parameter.detach())], None, m.pattern)[0]
            for m in self._members
        ]
        for pool in self._pools:
            budget = self._budget(pool, None if step == self.updates.last else self._ratio(pool, update))
            costs = [self.structures[i].cost([magnitudes[p] for p in self._places[i]]) for i in pool.indices]
            chosen = choose(costs, budget)
            counts = torch.stack([pruned.sum() for pruned in chosen]).tolist()
            for i, pruned, count in zip(pool.indices, chosen, counts, strict=True):
                if count or self._pruned[i]:
                    self._prune(i, pruned, magnitudes, int(count))

    def state_dict(self) -> dict[str, Any]:
        """Also the dense weights, while they matter."""
        dense = self._dense or []
        names = [weight.name for weight in self.weights]
        return {**super().state_dict(), "dense": dict(zip(names, dense, strict=False))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        dense = state["dense"]
        self._fits("dense weights", dense, {w.name: w.parameter.shape for w in self.weights})
        super().load_state_dict(state)
        kept = [dense[w.name].to(w.parameter.device, copy=True) for w in self.weights] if dense else None
        self._dense = kept
