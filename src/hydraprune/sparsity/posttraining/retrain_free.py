"""Pruning channels and heads by the Fisher information of masks. Kwon et al. 2022, arXiv:2204.09656."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.posttraining.base import MaskDecision, PostTraining, PruningTask, decision
from hydraprune.sparsity.precision import at_least_single
from hydraprune.sparsity.selection import choose


@dataclass(frozen=True)
class RetrainFree(PostTraining):
    """A unit costs the Fisher information of a mask value that scales it; weights are not changed.

    The gradient of a mask value, sum(w * g) over the unit, is computed for every calibration batch;
    the sum of its squares is the unit's Fisher information. The units with the least of it are
    pruned; then, within each layer and at an equal count, units are exchanged as long as the
    gradients of the pruned ones cancel out better. This is Neural Compressor's form, with one
    gradient per batch; the paper has one per example. The mask value of a head scales the head's
    output: its columns in the output projection.
    """

    @property
    def per_layer(self) -> bool:
        return False

    def check(self, structures: Sequence[Structure]) -> None:
        for structure in structures:
            pattern = _output(structure).pattern
            if not pattern.whole_channels:
                raise self.refusal(
                    f"scales whole channels or heads, which units of {pattern.name} are not",
                    cure="choose pattern=1xchannel, channelx1, heads or ffn_channels",
                )

    def decide(self, task: PruningTask, indices: Sequence[int]) -> list[MaskDecision]:
        gradients = mask_gradients(task, self.batches)
        fisher = [gradient.square().sum(0) for gradient in gradients]
        decisions = []
        for competing, budget in task.pools:
            costs = [fisher[i].float().masked_fill(task.empty[i].cpu(), -torch.inf) for i in competing]
            for i, first in zip(competing, choose(costs, budget), strict=True):
                structure = task.structures[i]
                pruned = rearranged(first, gradients[i], task.empty[i].cpu()).to(task.empty[i].device)
                cells = [member.pattern.to_cells(member.values) for member in structure.members]
                decisions.append(decision(i, pruned, cells, structure))
        return decisions


def _output(structure: Structure) -> Member:
    """The member through which a unit reaches the rest of the model: for a head, the output projection."""
    return structure.members[-1]


def mask_gradients(task: PruningTask, batches: int) -> list[Tensor]:
    """Per structure the gradient of the loss by one mask value for each unit, [batches, units], float64 on the CPU.

    Parameters keep the `grad` and `requires_grad` that they had.

    Raises:
        SparsityError: there was no batch, the loss does not depend on a weight, or a gradient is not finite.
    """
    members = [_output(structure) for structure in task.structures]
    parameters = [member.weight.parameter for member in members]
    rows: list[list[Tensor | None]] = [[] for _ in members]
    with _differentiable(parameters), torch.enable_grad():
        for loss in task.calibration(batches):
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for member, gradient, row in zip(members, found, rows, strict=True):
                row.append(None if gradient is None else _summed(member, gradient))
    if not rows[0]:
        raise SparsityError("the calibration gave no batch", cure="it needs at least one")
    result = [_stacked(member, row) for member, row in zip(members, rows, strict=True)]
    for member, gradients in zip(members, result, strict=True):
        if not bool(gradients.isfinite().all()):
            raise SparsityError(f"{member.weight.name}: a gradient is not finite on the calibration batches")
    return result


def _stacked(member: Member, rows: Sequence[Tensor | None]) -> Tensor:
    """The gradients of one member, [batches, units]; zero in a batch for which the model does not use it."""
    if all(row is None for row in rows):
        raise SparsityError(f"{member.weight.name} gets no gradient on the calibration batches", cure="exclude it")
    none = torch.zeros(member.units, dtype=torch.float64)
    return torch.stack([none if row is None else row for row in rows])


@torch.no_grad()
def _summed(member: Member, gradient: Tensor) -> Tensor:
    products = member.weight.view(at_least_single(member.weight.parameter.detach()) * at_least_single(gradient))
    # In double precision from here on: exchanges compare small differences of sums.
    return member.pattern.sum_cells(products).flatten().cpu().double()


@contextmanager
def _differentiable(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in zip(parameters, before, strict=True):
            parameter.requires_grad_(flag)


def rearranged(pruned: Tensor, gradients: Tensor, empty: Tensor) -> Tensor:
    """Exchange units of one layer so that the gradients of the pruned ones cancel out, at an equal count.

    Each unit that is kept, those with the least Fisher information first, is added to the pruned
    ones, and the one without which the sum of their gradients is shortest is kept instead.

    Args:
        pruned: bool, flat [units]; the choice to begin with.
        gradients: [batches, units].
        empty: bool like `pruned`; these stay pruned.
    """
    members, total = pruned.clone(), gradients[:, pruned].sum(1)
    lengths = gradients.square().sum(0)
    for unit in lengths.argsort(stable=True).tolist() if bool(pruned.any()) else []:
        if pruned[unit]:
            continue
        members[unit] = True
        total = total + gradients[:, unit]
        # |total - g|^2 of every candidate, less |total|^2, which they share.
        without = (lengths - 2 * (total @ gradients)).masked_fill(~members | empty, torch.inf)
        back = unit if without[unit] <= without.min() else int(without.argmin())
        members[back] = False
        total = total - gradients[:, back]
    return members
