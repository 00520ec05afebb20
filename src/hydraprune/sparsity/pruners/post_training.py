"""Pruning once, by what the model does on a few batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.posttraining.base import Calibration, Choice, Orders, PostTraining
from hydraprune.sparsity.pruners.budgeted import Targeted, refuse_parts
from hydraprune.sparsity.schedules import OneShot, Updates


class Calibrated(Targeted):
    """Carries out a plan whose method is a `PostTraining`, and holds its masks from then on.

    Arguments as of `Pruner`, and:
        modules: parameter name -> the module that holds the parameter.
        calibration: runs the model; needed when the update comes, not before.

    Raises:
        SparsityError: the amounts are impossible, the method cannot judge a layer or pattern, or parts
            of the plan do not go together.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        updates: Updates,
        structures: Sequence[Structure],
        modules: Mapping[str, nn.Module],
        calibration: Calibration | None = None,
    ) -> None:
        assert isinstance(plan.criterion, PostTraining)
        self.method: PostTraining = plan.criterion
        if self.method.per_layer and plan.selection.scope == "global":
            # What comes of it is what a scope of local gives, and reports are to say so.
            plan = replace(plan, selection=replace(plan.selection, scope="local"))
        super().__init__(name, plan, updates, structures)
        refuse_misfit_parts(self.method, plan)
        self.method.check(self.structures)
        self._modules, self._calibration = modules, calibration

    def observe(self, step: int) -> None:
        """Nothing is scored while training."""

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
            raise SparsityError(
                f"pruner={self.method.name}: prunes by calibration batches, and there are none; give "
                f"attach(..., calibration=...)"
            )
        budgets = [(pool.indices, self._budget(pool, None)) for pool in self._pools]
        masks = self.masks
        empty = tuple(_held(structure, masks) for structure in self.structures)
        orders = Orders(self.structures, tuple(budgets), empty, self._modules, self._calibration)
        for choice in self.method.choices(orders):
            self._take(choice)

    def _take(self, choice: Choice) -> None:
        for offset, place in enumerate(self._places[choice.index]):
            weight = self._members[place].weight
            if choice.weights is not None:
                weight.view(weight.parameter.detach()).copy_(choice.weights[offset])
            keep = weight.layout.weight(choice.keeps[offset], weight.parameter.shape)
            self._masks.load(place, keep.contiguous())
        self._pruned[choice.index] = int(choice.pruned.sum())
        # Blocks to come are to see what this one now gives.
        self._masks.apply()


def _held(structure: Structure, masks: Mapping[str, Tensor]) -> Tensor:
    """The units of a structure that masks hold at zero: bool, flat [units]."""
    if all(member.weight.name in masks for member in structure.members):
        return structure.empty(masks)
    device = structure.members[0].weight.parameter.device
    return torch.zeros(structure.units, dtype=torch.bool, device=device)


def refuse_misfit_parts(method: PostTraining, plan: Plan) -> None:
    """Refuse a plan of which a single update would ignore a part.

    Raises:
        SparsityError: naming the key, and what fits.
    """
    if not isinstance(plan.schedule, OneShot):
        raise SparsityError(f"pruner={method.name}: prunes once; use scheduler=oneshot or at_start")
    refuse_parts(f"pruner={method.name}", plan)
