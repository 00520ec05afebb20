"""States of pruners for `torch.distributed.checkpoint`, which any number of processes can read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.pruners.gradual import Gradual
from hydraprune.sparsity.shards import held, is_sharded

# Of a pruner's state: tensors by the names of weights, those of which are there, and everything else.
_MASKS, _FIXED, _MEMORY, _THERE, _OTHERS = "masks", "fixed", "memory", "there", "others"


def distributed_state_dict(pruner: Gradual) -> dict[str, Any]:
    """`pruner.state_dict()`, what is sharded as DTensors: `torch.distributed.checkpoint` saves each part once.

    Its keys and shapes are the same at every step and for any number of processes: that of a new pruner is what a
    checkpoint is loaded into, before `load_distributed_state_dict`.

        state = {"model": model.state_dict(), "pruner": distributed_state_dict(pruner)}
        torch.distributed.checkpoint.save(state, checkpoint_id=folder)

    Raises:
        SparsityError: a method of which a state like this is not known.
    """
    _refuse_others(pruner)
    state = pruner.state_dict()
    there = {key: sorted(state[key]) for key in (_MASKS, _FIXED, _MEMORY)}
    result: dict[str, Any] = {_MASKS: {}, _FIXED: {}, _MEMORY: {}}
    for member, shape in zip(pruner.members, pruner.score_shapes().values(), strict=True):
        weight = member.weight
        for key in (_MASKS, _FIXED):
            keep = state[key].get(weight.name)
            keep = torch.ones(weight.held.shape, dtype=torch.bool, device=weight.held.device) if keep is None else keep
            result[key][weight.name] = _distributed(keep, weight, weight.parameter.shape)
        scores = state[_MEMORY].get(weight.name)
        scores = torch.zeros(shape, device=weight.held.device) if scores is None else scores
        result[_MEMORY][weight.name] = _distributed(*_by_rows(scores, member, pruner))
    others = {key: value for key, value in state.items() if key not in result}
    return {**result, _THERE: there, _OTHERS: others}


def load_distributed_state_dict(pruner: Gradual, state: Mapping[str, Any]) -> None:
    """Take over what `torch.distributed.checkpoint` loaded into the `distributed_state_dict` of this pruner.

    Raises:
        SparsityError: it is the state of another pruner, plan or model.
    """
    _refuse_others(pruner)
    if absent := [key for key in (_MASKS, _FIXED, _MEMORY, _THERE, _OTHERS) if key not in state]:
        raise SparsityError(f"this is no distributed state of a pruner: it has no {absent[0]}")
    plain = dict(state[_OTHERS])
    pruner.refuse_other_state({**plain, _MASKS: {}, _FIXED: {}, _MEMORY: {}})
    for key in (_MASKS, _FIXED):
        plain[key] = {name: held(state[key][name]) for name in state[_THERE][key]}
    members = {member.weight.name: member for member in pruner.members}
    shapes = pruner.score_shapes()
    plain[_MEMORY] = {
        name: _as_scored(held(state[_MEMORY][name]), members[name], pruner, shapes[name])
        for name in state[_THERE][_MEMORY]
    }
    pruner.load_state_dict(plain)


def _refuse_others(pruner: object) -> None:
    if not isinstance(pruner, Gradual) or pruner.prunes_in_parts:
        kind = "progressive" if isinstance(pruner, Gradual) else type(pruner).__name__.lower()
        raise SparsityError(f"{kind} pruning has no distributed state", cure="save its state_dict() instead")


def _distributed(part: Tensor, weight: Weight, shape: torch.Size) -> Tensor:
    """What this process holds of a tensor of `shape`, as one that is sharded like its weight."""
    parameter: Any = weight.parameter
    if not is_sharded(parameter):
        return part
    from torch.distributed.tensor import DTensor

    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(part.contiguous(), mesh, placements, run_check=False, shape=shape, stride=stride)


def _row_axis(member: Member, pruner: Gradual) -> int | None:
    """The axis of a score state that grows with the rows of its weight; None where there is none, as for columns."""
    rows, positions, columns = member.weight.view_shape
    one, two = (pruner.criterion.state_shape((n * rows, positions, columns), member.pattern) for n in (1, 2))
    return next((i for i, (size, other) in enumerate(zip(one, two, strict=True)) if size != other), None)


def _by_rows(scores: Tensor, member: Member, pruner: Gradual) -> tuple[Tensor, Weight, torch.Size]:
    """A score state as [rows of units, everything else], its weight, and the shape of the whole."""
    weight = member.weight
    axis, height = _row_axis(member, pruner), _height(member)
    whole = pruner.criterion.state_shape(weight.view_shape, member.pattern)
    if axis is None:
        return scores, weight, whole
    rows = weight.view_shape[0] // height
    shape = torch.Size([rows, math.prod(whole) // rows])
    return scores.movedim(axis, 0).reshape(weight.held_shape[0] // height, shape[1]), weight, shape


def _as_scored(part: Tensor, member: Member, pruner: Gradual, shape: torch.Size) -> Tensor:
    """The inverse of `_by_rows`."""
    axis = _row_axis(member, pruner)
    if axis is None:
        return part
    moved = [shape[axis], *(size for i, size in enumerate(shape) if i != axis)]
    return part.reshape(moved).movedim(0, axis).contiguous()


def _height(member: Member) -> int:
    """Rows of a unit."""
    unit = member.pattern.unit_shape(member.weight.view_shape)
    return 1 if unit is None else unit[0]
