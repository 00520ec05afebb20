"""Straight-through estimation: sparse weights in the forward pass, dense weights in the optimizer step."""

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
from hydraprune.sparsity.pruners.budgeted import Budgeted, threshold_refusal
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import choose


class StraightThrough(Budgeted):
    """Trains dense weights through a mask that is chosen again before every step.

    The parameters hold the dense weights only between `observe` and `project`, while the optimizer
    takes its step, and the sparse ones at all other times.

    Args:
        name, plan, updates, structures: see `Pruner`.
        method: the plan's.

    Raises:
        SparsityError: the amounts are impossible, or the schedule does not suit the method.
    """

    def __init__(self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure], method: SrSte) -> None:
        super().__init__(name, plan, updates, structures)
        self._method = method
        if updates.schedule.by_scores:
            raise threshold_refusal()
        self._dense: list[Tensor] | None = None  # the unmasked weights, while masks may change

    @torch.no_grad()
    def observe(self, step: int) -> None:
        self._refuse_replaced()
        if self._dense is None:
            return
        for i, (member, dense) in enumerate(zip(self._members, self._dense, strict=True)):
            parameter, mask = member.weight.parameter, self._masks.whole(i)
            if parameter.grad is None and not parameter.requires_grad:
                raise SparsityError(
                    f"{member.weight.name} gets no gradient: it is frozen",
                    cure=f"exclude it from pruner {self.name} or unfreeze it",
                )
            parameter.copy_(dense)
            if mask is not None and parameter.grad is not None:
                parameter.grad.add_(dense * ~mask, alpha=self._method.decay)

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
        """Mask the cheapest units by magnitude, as many as at the last update of the schedule."""
        magnitudes = [Magnitude().update_state(None, [m.values], None, m.pattern)[0] for m in self._members]
        for pool in self._pools:
            budget = self._budget(pool, None if step == self.updates.last else self._ratio(pool, step))
            costs = [self.structures[i].cost([magnitudes[j] for j in self._indices[i]]) for i in pool.indices]
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
        self._state_check.refuse_other_plan(state, list(self.state_dict()))
        dense = state["dense"]
        self._state_check.refuse_other_shapes("dense weights", dense, {w.name: w.parameter.shape for w in self.weights})
        super().load_state_dict(state)
        kept = [dense[w.name].to(w.parameter.device, copy=True) for w in self.weights] if dense else None
        self._dense = kept
