"""Pruning channels and heads by the Fisher information of masks. Kwon et al. 2022, arXiv:2204.09656."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.patterns import Block
from hydraprune.sparsity.posttraining.base import Choice, Orders, PostTraining, chosen
from hydraprune.sparsity.selection import choose


@dataclass(frozen=True)
class RetrainFree(PostTraining):
    """A unit costs what the loss says of a mask value that scales it; weights are not changed.

    The gradient of a mask value, sum(w * g) over the unit, is taken for every calibration batch;
    the sum of its squares is the unit's Fisher information. As many units as asked for go where it
    is least; then, within each layer and at an equal count, units are exchanged as long as the
    gradients of those that go cancel out better. That is Neural Compressor's form, with one gradient
    a batch; the paper's has one an example. The mask value of a head scales what the head gives,
    which are its columns in the output projection.
    """

    @property
    def name(self) -> str:
        return "retrain_free"

    @property
    def per_layer(self) -> bool:
        return False

    def check(self, structures: Sequence[Structure]) -> None:
        for structure in structures:
            pattern = _speaker(structure).pattern
            if not isinstance(pattern, Block) or "channel" not in (pattern.rows, pattern.cols):
                raise SparsityError(
                    f"pruner=retrain_free: scales whole channels or heads, which units of {pattern.name} are not; "
                    f"choose pattern=1xchannel, channelx1 or heads"
                )

    def choices(self, orders: Orders) -> Iterator[Choice]:
        gradients = mask_gradients(orders, self.batches)
        fisher = [gradient.square().sum(0) for gradient in gradients]
        for indices, budget in orders.pools:
            costs = [fisher[i].float().masked_fill(orders.empty[i].cpu(), -torch.inf) for i in indices]
            for i, first in zip(indices, choose(costs, budget), strict=True):
                members = orders.structures[i].members
                pruned = rearranged(first, gradients[i], orders.empty[i].cpu()).to(orders.empty[i].device)
                cells = [m.pattern.pool(m.weight.view(m.weight.parameter.detach())) for m in members]
                yield chosen(i, pruned, cells, members)


def _speaker(structure: Structure) -> Member:
    """The member through which all that a unit does reaches the rest: of a head, the output projection."""
    return structure.members[-1]


def mask_gradients(orders: Orders, batches: int) -> list[Tensor]:
    """Per structure the gradient of the loss by one mask value for each unit, [batches, units], float64 on the CPU.

    Leaves no gradient behind.

    Raises:
        SparsityError: there was no batch, the loss does not hang on a weight, or a gradient is not finite.
    """
    members = [_speaker(structure) for structure in orders.structures]
    parameters = [member.weight.parameter for member in members]
    rows: list[list[Tensor]] = [[] for _ in members]
    with _differentiable(parameters), torch.enable_grad():
        for loss in orders.calibration(batches):
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for member, gradient, row in zip(members, found, rows, strict=True):
                if gradient is None:
                    raise SparsityError(f"{member.weight.name} gets no gradient on the calibration batches; exclude it")
                row.append(_summed(member, gradient))
    if not rows[0]:
        raise SparsityError("the calibration gave no batch; it needs at least one")
    result = [torch.stack(row) for row in rows]
    for member, gradients in zip(members, result, strict=True):
        if not bool(gradients.isfinite().all()):
            raise SparsityError(f"{member.weight.name}: a gradient is not finite on the calibration batches")
    return result


@torch.no_grad()
def _summed(member: Member, gradient: Tensor) -> Tensor:
    assert isinstance(member.pattern, Block)
    products = member.weight.view(member.weight.parameter.detach() * gradient)
    # In double precision from here on: exchanges compare small differences of sums.
    return replace(member.pattern, reduce="sum").pool(products).flatten().cpu().double()


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
    """Exchange units of one layer so that the gradients of those that go cancel out, at an equal count.

    Each unit that stays, those of least Fisher information first, is added to those that go, and the
    one is taken back without which the sum of their gradients is shortest.

    Args:
        pruned: bool, flat [units]; the choice to begin with.
        gradients: [batches, units].
        empty: bool like `pruned`; these are not taken back.
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
