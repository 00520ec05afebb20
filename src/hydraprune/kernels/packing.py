"""Weights packed for the kernels: of every group of output rows, only the columns in which a weight is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]
# Rows of a block, and what one block costs a kernel, relative to one of four rows: its loads count beside its products.
_COSTS = {8: 1.9, 4: 1.0, 2: 0.66, 1: 0.55}


@dataclass(frozen=True, slots=True)
class Part:
    """Groups of output rows, and the live blocks of each.

    Args:
        rows: int32 [groups, N], the output rows of each group; N is 1, 2, 4 or 8.
        start: int32 [groups + 1]; the blocks of group g are start[g] to start[g + 1].
        column: int32 [blocks], the input column of each block; with bfloat16 [blocks, 2], two columns.
        value: float32 [blocks, N]; with bfloat16 [blocks, N, 2], of the two columns.
    """

    rows: Tensor
    start: Tensor
    column: Tensor
    value: Tensor

    @property
    def size(self) -> int:
        """Rows of a block."""
        return self.rows.shape[1]


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A linear layer without its zeros: y = weight x + bias.

    Args:
        shape: [outputs, inputs] of the weight.
        parts: their rows together are all rows.
        bias: float32 [outputs].
    """

    shape: tuple[int, int]
    parts: tuple[Part, ...]
    bias: Tensor

    @property
    def bytes(self) -> int:
        """What the weight and the bias take in memory."""
        tensors = [self.bias, *(t for part in self.parts for t in (part.rows, part.start, part.column, part.value))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def pack(weight: Tensor, bias: Tensor | None, precision: Precision = "fp32") -> PackedLinear:
    """A weight [outputs, inputs] without its zeros; any pattern, or none.

    Blocks are as tall as pays: 8x1 and taller patterns give blocks of 8, 4x1 of 4, and a weight that is zero in whole
    rows keeps the others. Values are those of the weight, or with `bf16` the nearest of bfloat16.

    Raises:
        ValueError: the weight is not a matrix of real numbers.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"a weight is a matrix of floats, not {weight.dtype} {list(weight.shape)}")
    dense = weight.detach().to(device="cpu", dtype=torch.float32).contiguous()
    outputs, inputs = dense.shape
    live = dense != 0
    # Of bytes, this takes a fiftieth of the time of `any`.
    alive = live.view(torch.uint8).amax(1).bool() if inputs else torch.zeros(outputs, dtype=torch.bool)
    living, dead = alive.nonzero().flatten(), (~alive).nonzero().flatten()
    if len(dead):
        live = live[living]
    size, groups = _blocks(live)
    whole = len(groups) * size
    parts = [_part(dense, living[:whole].view(-1, size), groups, precision)]
    rest = torch.cat([living[whole:], dead])
    if len(rest):
        parts.append(_part(dense, rest.view(-1, 1), dense[rest] != 0, precision))
    offset = torch.zeros(outputs) if bias is None else bias.detach().to(device="cpu", dtype=torch.float32).contiguous()
    return PackedLinear((outputs, inputs), tuple(part for part in parts if len(part.rows)), offset)


def unpack(packed: PackedLinear) -> Tensor:
    """The weight that was packed, float32 [outputs, inputs]."""
    weight = torch.zeros(packed.shape)
    for part in packed.parts:
        count = (part.start[1:] - part.start[:-1]).long()
        rows = part.rows.long().repeat_interleave(count, 0)
        if part.column.dim() == 1:
            weight[rows, part.column.long()[:, None]] = part.value
        else:
            # Second columns that fill a pair have zeros, and are those of a first one.
            for which in (1, 0):
                at = (rows, part.column[:, which].long()[:, None])
                weight[at] += part.value[:, :, which].float()
    return weight


def _blocks(live: Tensor) -> tuple[int, Tensor]:
    """The rows of a block that cost least, and which blocks are live, [groups, inputs]; `live`: [rows, inputs]."""
    groups, size, found = live, 1, []
    while True:
        rest = int(live[len(groups) * size :].count_nonzero())
        found.append((int(groups.count_nonzero()) * _COSTS[size] + rest * _COSTS[1], size, groups))
        if size == max(_COSTS):
            # Of equal ones the smaller: its strips of tokens are wider.
            _, size, groups = min(found, key=lambda one: one[:2])
            return size, groups
        pairs = len(groups) // 2 * 2
        groups, size = groups[0:pairs:2] | groups[1:pairs:2], 2 * size


def _part(dense: Tensor, rows: Tensor, live: Tensor, precision: Precision) -> Part:
    """rows: [groups, N]; live: [groups, inputs]."""
    group, column = live.nonzero(as_tuple=True)
    value = dense[rows[group], column[:, None]]
    count = torch.bincount(group, minlength=len(rows))
    if precision == "bf16":
        count, column, value = _paired(count, column, value)
    start = torch.zeros(len(rows) + 1, dtype=torch.int32)
    start[1:] = count.cumsum(0)
    return Part(rows.int().contiguous(), start, column.int().contiguous(), value.contiguous())


def _paired(count: Tensor, column: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks two by two within their group; an odd one is paired with zeros in its own column."""
    pairs = (count + 1) // 2
    first = count.cumsum(0) - count
    place = torch.arange(len(column)) - first.repeat_interleave(count)
    pair = (pairs.cumsum(0) - pairs).repeat_interleave(count) + place // 2
    total = int(pairs.sum())
    columns = torch.zeros(total, 2, dtype=torch.long)
    columns[pair] = column[:, None]
    columns[pair, place % 2] = column
    values = torch.zeros(total, 2, value.shape[1], dtype=torch.bfloat16)
    values[pair, place % 2] = value.bfloat16()
    return pairs, columns, values.transpose(1, 2)
