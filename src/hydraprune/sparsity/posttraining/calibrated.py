"""Pruning once, by what the model does on a few batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hydraprune.sparsity import allocation
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.posttraining.contract import Calibration, Choice, Orders, PostTraining
from hydraprune.sparsity.progressive import AtOnce
from hydraprune.sparsity.pruner import Pruner, Units
from hydraprune.sparsity.regularizers import Unregularized
from hydraprune.sparsity.schedules import OneShot, Updates
from hydraprune.sparsity.structures import Structure


class Calibrated(Pruner):
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
        self._share = plan.pattern.share
        self._extents = [allocation.Extent(s.units, s.sides) for s in self.structures]
        allocation.check(plan.selection, self._extents, self._share, plan.pattern.name)
        self._pools = allocation.allot(plan.selection, self._extents, self._share)
        self._modules, self._calibration = modules, calibration

    def observe(self, step: int) -> None:
        """Nothing is scored while training."""

    @torch.no_grad()
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        if not self._begun:
            self._begun = True
            if self.plan.selection.initial_sparsity is None:
                self._keep_zeros()
                self._refuse_sparser()
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
        budgets = [
            (indices, selection.budget([self._extents[i].units for i in indices], self._share))
            for indices, selection in self._pools
        ]
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

    def _refuse_sparser(self) -> None:
        for structures, units in self.pools:
            if units.pruned > units.target:
                where = structures[0].name if len(structures) == 1 else "the model"
                raise SparsityError(
                    f"target_sparsity={self.target_sparsity}: {where} has {units.pruned} of {units.total} units at "
                    f"zero when it starts, more than the {units.target} asked for; raise the target, keep its zeros "
                    f"with pattern=lock, or let them go with initial_sparsity=0"
                )

    @property
    def pools(self) -> list[tuple[list[Structure], Units]]:
        result = []
        for indices, selection in self._pools:
            sizes = [self._extents[i].units for i in indices]
            goal = selection.budget(sizes, self._share).goal
            units = Units(goal, sum(self._pruned[i] for i in indices), sum(sizes))
            result.append(([self.structures[i] for i in indices], units))
        return result


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
    if not isinstance(plan.transition or AtOnce(), AtOnce):
        raise SparsityError(f"pruner={method.name}: prunes once, and all at once; use progressive=none")
    if not isinstance(plan.regularizer or Unregularized(), Unregularized):
        raise SparsityError(f"pruner={method.name}: no update comes for units to shrink towards; use regularizer=none")
