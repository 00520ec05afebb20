"""Weights packed for the kernels: of every group of output rows, only the columns in which a weight is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer[Any]]
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
    # numpy takes a third of torch's time for what follows.
    dense: Floats = weight.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
    live = dense != 0
    alive = live.any(1)
    living, dead = np.flatnonzero(alive), np.flatnonzero(~alive)
    size, groups = _blocks(live[living] if len(dead) else live)
    whole = len(groups) * size
    parts = [_part(dense, living[:whole].reshape(-1, size), groups, precision)]
    rest = np.concatenate([living[whole:], dead])
    parts.append(_part(dense, rest[:, None], live[rest], precision))
    return _linear(weight.shape, parts, bias)


def pack_blocks(
    shape: tuple[int, int], live: Flags, values: Tensor, bias: Tensor | None, precision: Precision = "fp32"
) -> PackedLinear:
    """As `pack`, of a weight that is given by its live blocks of N rows and a column, without making the weight.

    It is made after all where other blocks pay.

    Args:
        shape: [outputs, inputs].
        live: bool [groups, inputs], blocks that hold a value other than 0; rows g * N to g * N + N - 1 are group g.
        values: floats [live blocks, N], by group and then by column; N is 1, 2, 4 or 8.
    """
    size = values.shape[1]
    block: Floats = values.detach().float().contiguous().numpy()
    count, column = _by_group(live)
    living, dead = np.flatnonzero(count), np.flatnonzero(count == 0)
    is_given = len(block) and shape[0] % size == 0
    if not is_given or size != _size_of_blocks(live[living] if len(dead) else live, count[living], block):
        return pack(dense_of_blocks(shape, live, values), bias, precision)
    in_group = np.arange(size)
    parts = [
        _assembled(living[:, None] * size + in_group, count[living], column, block, precision),
        _assembled(
            (dead[:, None] * size + in_group).reshape(-1, 1),
            np.zeros(len(dead) * size, np.int64),
            column[:0],
            block[:0, :1],
            precision,
        ),
    ]
    return _linear(shape, parts, bias)


def dense_of_blocks(shape: tuple[int, int], live: Flags, values: Tensor) -> Tensor:
    """The weight of live blocks, float32 [outputs, inputs]; the arguments are those of `pack_blocks`."""
    (groups, inputs), size = live.shape, values.shape[1]
    single: Floats = values.detach().float().numpy()
    dense = np.zeros((groups, size, inputs), np.float32)
    for row in range(size):
        dense[:, row][live] = single[:, row]
    return torch.from_numpy(dense.reshape(groups * size, inputs)[: shape[0]])


def unpack(packed: PackedLinear) -> Tensor:
    """The weight that was packed, float32 [outputs, inputs]."""
    weight = torch.zeros(packed.shape, dtype=torch.float32, device="cpu")
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


def _linear(shape: Sequence[int], parts: Sequence[Part], bias: Tensor | None) -> PackedLinear:
    outputs, inputs = shape
    given = torch.zeros(outputs) if bias is None else bias.detach()
    offset = given.to(device="cpu", dtype=torch.float32).contiguous()
    return PackedLinear((outputs, inputs), tuple(part for part in parts if len(part.rows)), offset)


def _blocks(live: Flags) -> tuple[int, Flags]:
    """The rows of a block that cost least, and which blocks are live, [groups, inputs]; `live`: [rows, inputs]."""
    groups, size, found = live, 1, []
    while True:
        rest = _count(live[len(groups) * size :])
        found.append((_cost(_count(groups), size, rest), size, groups))
        if size == max(_COSTS):
            # Of equal ones the smaller: its strips of tokens are wider.
            _, size, groups = min(found, key=lambda one: one[:2])
            return size, groups
        groups, size = _in_pairs(groups), 2 * size


def _size_of_blocks(live: Flags, count: Integers, block: Floats) -> int | None:
    """The size that `_blocks` finds, from blocks [live blocks, N] all of whose groups are live; None if rows are zero.

    Args:
        live: [groups, inputs].
        count: [groups], the live blocks of each.
    """
    size = block.shape[1]
    first = np.concatenate([[0], count.cumsum()])
    nonzero = parts = block != 0
    if not (nonzero.all() or np.logical_or.reduceat(nonzero, first[:-1]).all()):
        return None
    found, smaller = [], 1
    while smaller < size:
        found.append((_cost(_count(parts), smaller, 0), smaller))
        parts, smaller = parts[:, 0::2] | parts[:, 1::2], 2 * smaller
    taller, groups = size, live
    while taller <= max(_COSTS):
        rest = _count(nonzero[first[len(groups) * taller // size] :])
        found.append((_cost(_count(groups), taller, rest), taller))
        groups, taller = _in_pairs(groups), 2 * taller
    return min(found)[1]


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))


def _cost(blocks: int, size: int, rest: int) -> float:
    """Of some blocks, and of the numbers in the rows behind the last whole group."""
    return blocks * _COSTS[size] + rest * _COSTS[1]


def _in_pairs(groups: Flags) -> Flags:
    pairs = len(groups) // 2 * 2
    return groups[0:pairs:2] | groups[1:pairs:2]


def _part(dense: Floats, rows: Integers, live: Flags, precision: Precision) -> Part:
    """rows: [groups, N]; live: [groups, inputs]."""
    count, column = _by_group(live)
    places = np.repeat(rows * dense.shape[1], count, axis=0)
    places += column[:, None]
    # Out of range is nothing; the default looks for it, and takes four times as long.
    value = dense.reshape(-1).take(places, mode="clip") if len(column) else np.zeros(places.shape, np.float32)
    return _assembled(rows, count, column, value, precision)


def _by_group(live: Flags) -> tuple[Integers, Integers]:
    """How many blocks of each group are live, and the column of each; `live`: [groups, inputs]."""
    groups, inputs = live.shape
    places, first = np.flatnonzero(live), np.arange(groups + 1) * inputs
    count = np.diff(np.searchsorted(places, first))
    return count, places - np.repeat(first[:-1], count)


def _assembled(rows: Integers, count: Integers, column: Integers, value: Floats, precision: Precision) -> Part:
    """Of groups [groups, N] the live blocks: how many each has, and their columns and values [blocks, N]."""
    start = torch.zeros(len(rows) + 1, dtype=torch.int32)
    columns, values = torch.from_numpy(column), torch.from_numpy(value)
    counts = torch.from_numpy(count)
    if precision == "bf16":
        counts, columns, values = _paired(counts, columns, values)
    start[1:] = counts.cumsum(0)
    return Part(torch.from_numpy(rows).int(), start, columns.int().contiguous(), values.contiguous())


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
