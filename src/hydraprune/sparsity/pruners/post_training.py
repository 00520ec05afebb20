"""Pruning once, by a method that judges the model on calibration batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.posttraining.base import Calibration, MaskDecision, PostTraining, PruningTask
from hydraprune.sparsity.pruners.budgeted import Budgeted
from hydraprune.sparsity.schedules import Updates


class Calibrated(Budgeted):
    """Prunes once by a `PostTraining` method, and keeps its masks from then on.

    Args:
        name, plan, updates, structures: see `Pruner`.
        method: the plan's.
        modules: parameter name -> the module that holds the parameter.
        calibration: runs the model; needed at the update, not before.

    Raises:
        SparsityError: the amounts are impossible, the method cannot judge a layer or pattern, or several processes
            train together.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        updates: Updates,
        structures: Sequence[Structure],
        method: PostTraining,
        modules: Mapping[str, nn.Module],
        calibration: Calibration | None = None,
    ) -> None:
        self.method = method
        # A function that gives each process the same batches says so.
        if not getattr(calibration, "is_same_in_all_processes", False):
            _refuse_many_processes(method)
        if method.per_layer and plan.selection.scope == "global":
            # The result is that of scope=local, and reports should say so.
            plan = replace(plan, selection=replace(plan.selection, scope="local"))
        super().__init__(name, plan, updates, structures)
        method.check(self.structures)
        self._modules, self._calibration = modules, calibration

    def observe(self, step: int) -> None:
        """Nothing is scored while training."""
        self._refuse_replaced()
        self._check_order()

    @property
    def needs_pruned_gradients(self) -> bool:
        return False

    @torch.no_grad()
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        self.begin()
        self._masks.apply()
        if not self.updates.due(step):
            return False
        if any(units.target for _, units in self.pools):
            self._calibrate()
        return True

    def _calibrate(self) -> None:
        if self._calibration is None:
            raise self.method.refusal(
                "prunes by calibration batches, and there are none", cure="give attach(..., calibration=...)"
            )
        budgets = [(pool.indices, self._budget(pool, None)) for pool in self._pools]
        empty = tuple(self._masked_units(index) for index in range(len(self.structures)))
        task = PruningTask(self.structures, tuple(budgets), empty, self._modules, self._calibration)
        for indices in self.method.rounds(self.structures):
            for decision in self.method.decide(task, indices):
                self._carry_out(decision)
            # The next round sees the outputs of the layers pruned so far.
            self._masks.apply()

    def _carry_out(self, decision: MaskDecision) -> None:
        for offset, index in enumerate(self._indices[decision.index]):
            member = self._members[index]
            if decision.weights is not None:
                member.values.copy_(decision.weights[offset])
            self._masks.load(index, member.weight.unview(decision.keeps[offset]).contiguous())
        self._pruned[decision.index] = int(decision.pruned.sum())


def _refuse_many_processes(method: PostTraining) -> None:
    """Refuse a training of several processes: each would prune by batches of its own, and end with other masks."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise method.refusal(
            f"prunes by calibration batches, which each of the {dist.get_world_size()} processes has of its own, so "
            f"that their masks would differ",
            cure="prune in one process and train the saved model, or choose a pruner that scores gradients",
        )
