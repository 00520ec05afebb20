"""What may be zero together? Geometry of blocks, channels and N:M groups on a weight's view.

A pattern knows *units* (what is pruned as a whole: a block, or the prunable share of an N:M
group) and *cells* (the resolution at which a criterion keeps its scores: one per block, or one
per weight for N:M).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError

# Ranking compares all pairs of a group; above this size sorting is quicker.
_MOST_BY_RANK = 8

ViewShape = tuple[int, int, int]
Reduce = Literal["mean", "sum", "max"]


@dataclass(frozen=True)
class Strip:
    """Cells that are sums over `rows` consecutive rows of one column, divided by `divisor`.

    Args:
        cells: the shape of all of them, as `Pattern.pool` gives it.
    """

    rows: int
    divisor: int
    cells: tuple[int, ...]


class Pattern(Protocol):
    """A shape rule for zeros. Frozen; every method is pure. Masks: True = keep."""

    @property
    def name(self) -> str:
        """The field's word for it, derived from its numbers: `4x1`, `2:4`, `1xchannel`."""

    @property
    def share(self) -> Fraction:
        """The largest element sparsity that the pattern allows: 1 for blocks, (of-keep)/of for N:M."""

    def misfit(self, shape: ViewShape) -> str | None:
        """Why the pattern cannot tile a view of `shape`; None when it can."""

    def units(self, shape: ViewShape) -> int:
        """How many units a view of `shape` holds."""

    def unit_zeros(self, shape: ViewShape) -> int:
        """How many weights one pruned unit sets to zero."""

    def pool(self, saliency: Tensor) -> Tensor:
        """Per-weight saliency [rows, positions, columns] -> the cells a criterion remembers."""

    def by_cell(self, values: Tensor) -> Tensor:
        """Values [rows, positions, columns] -> [lines, cells side by side in a line, weights of one cell].

        Cells are in the order of `pool`'s; those of a line are neighbours along the columns.
        """

    def total(self, values: Tensor) -> Tensor:
        """Values [rows, positions, columns] -> their sum over each cell, shaped as `pool` gives cells."""

    def strip(self, shape: ViewShape) -> Strip | None:
        """How `pool` sums, where that is along single columns of a view of `shape`; None otherwise."""

    def cost(self, cells: Tensor) -> Tensor:
        """Cells -> what pruning each unit would lose, flat [units]."""

    def tiles(self, view: Tensor) -> Tensor:
        """A view reshaped so that the masks of `small_mask` broadcast over it; shares memory where torch can."""

    def small_mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        """A choice of units (bool, flat [units], True = prune) -> bool mask, broadcastable to `tiles`."""

    def mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        """The same choice -> bool mask of the whole view."""

    def empty_units(self, keep: Tensor) -> Tensor:
        """Which units of a bool view (True = non-zero) are pruned, flat [units]."""

    def legal(self, keep: Tensor) -> bool:
        """Whether every zero of a bool view (True = keep) belongs to a pruned unit."""


def _reduce(values: Tensor, dims: tuple[int, ...], how: Reduce) -> Tensor:
    if how == "mean":
        return values.mean(dims)
    return values.sum(dims) if how == "sum" else values.amax(dims)


def _check_reduce(how: str) -> None:
    if how not in ("mean", "sum", "max"):
        raise SparsityError(f"reduce={how}: how scores of one unit combine must be mean, sum or max")


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True)
class Block:
    """Blocks of `rows` x `cols` = (output, input) channels, each kept or zeroed whole.

    Either side may be the word `channel`: `1xchannel` zeroes output channels, `channelx1` input
    channels; of a convolution these are whole channels, at every place of the kernel. Other
    blocks tile the matrix [out, positions * in] in which input channels run fastest.
    """

    rows: int | Literal["channel"]
    cols: int | Literal["channel"]
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        for key, side in (("rows", self.rows), ("cols", self.cols)):
            if side != "channel" and not _positive(side):
                raise SparsityError(f"{key}={side}: a block's side must be a positive whole number or 'channel'")
        if self.rows == self.cols == "channel":
            raise SparsityError("rows=channel, cols=channel: that is the whole layer; make one side a number")
        _check_reduce(self.reduce)

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.cols}"

    @property
    def share(self) -> Fraction:
        return Fraction(1)

    def _tiling(self, shape: ViewShape) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(shape to reshape a view to, its axes inside one block, shape of the grid of units)."""
        rows, positions, columns = shape
        if self.rows == "channel":
            assert isinstance(self.cols, int)
            return (rows * positions, columns // self.cols, self.cols), (0, 2), (1, columns // self.cols, 1)
        height = self.rows
        width = positions * columns if self.cols == "channel" else self.cols
        across = positions * columns // width
        return (rows // height, height, across, width), (1, 3), (rows // height, 1, across, 1)

    def misfit(self, shape: ViewShape) -> str | None:
        rows, positions, columns = shape
        if self.rows != "channel" and rows % self.rows:
            return f"{self.rows} does not divide its {rows} rows (output channels)"
        if self.rows == "channel" and self.cols != "channel" and columns % self.cols:
            return f"{self.cols} does not divide its {columns} input channels"
        if self.cols != "channel" and (positions * columns) % self.cols:
            return f"{self.cols} does not divide its {positions * columns} columns"
        return None

    def units(self, shape: ViewShape) -> int:
        count = 1
        for side in self._tiling(shape)[2]:
            count *= side
        return count

    def unit_zeros(self, shape: ViewShape) -> int:
        rows, positions, columns = shape
        return rows * positions * columns // self.units(shape)

    def pool(self, saliency: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(saliency))
        return _reduce(saliency.reshape(tiles), inside, self.reduce)

    def by_cell(self, values: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(values))
        tiled = values.reshape(tiles)
        # Outside axes first, then those inside one block.
        if inside == (0, 2):
            return tiled.movedim(1, 0).reshape(1, tiles[1], -1)
        return tiled.movedim(2, 1).reshape(tiles[0], tiles[2], -1)

    def total(self, values: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(values))
        return values.reshape(tiles).sum(inside)

    def strip(self, shape: ViewShape) -> Strip | None:
        if self.cols != 1 or self.rows == "channel" or (self.reduce == "max" and self.rows > 1):
            return None
        rows, positions, columns = shape
        divisor = self.rows if self.reduce == "mean" else 1
        return Strip(self.rows, divisor, (rows // self.rows, positions * columns))

    def cost(self, cells: Tensor) -> Tensor:
        return cells.flatten()

    def tiles(self, view: Tensor) -> Tensor:
        return view.reshape(self._tiling(shape_of(view))[0])

    def small_mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        return (~pruned).reshape(self._tiling(shape)[2])

    def mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        return self.spread(~pruned, shape)

    def spread(self, units: Tensor, shape: ViewShape) -> Tensor:
        """One value for each unit, flat [units] -> a view of `shape` that has it at every weight of the unit."""
        tiles, _, grid = self._tiling(shape)
        return units.reshape(grid).expand(tiles).reshape(shape)

    def empty_units(self, keep: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(keep))
        return ~keep.reshape(tiles).any(inside[1]).any(inside[0]).flatten()

    def legal(self, keep: Tensor) -> bool:
        tiles, inside, _ = self._tiling(shape_of(keep))
        whole = keep.reshape(tiles).all(inside[1]).all(inside[0]).flatten()
        return bool((whole | self.empty_units(keep)).all())


@dataclass(frozen=True)
class NofM:
    """N:M sparsity: of every `of` consecutive columns in a row, at most `keep` stay.

    The hardware's reading (Mishra et al. 2021, arXiv:2104.08378): `2:4` keeps 2 of 4, `1:4` keeps
    1. A unit is the prunable share of one group, so a target below (of-keep)/of leaves whole
    groups dense: that is how a schedule ramps.
    """

    keep: int
    of: int
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        for key, value in (("keep", self.keep), ("of", self.of)):
            if not _positive(value):
                raise SparsityError(f"{key}={value}: must be a positive whole number")
        if self.keep >= self.of:
            raise SparsityError(f"keep={self.keep}: must be below of={self.of}; {self.keep}:{self.of} prunes nothing")
        _check_reduce(self.reduce)

    @property
    def name(self) -> str:
        return f"{self.keep}:{self.of}"

    @property
    def share(self) -> Fraction:
        return Fraction(self.of - self.keep, self.of)

    def misfit(self, shape: ViewShape) -> str | None:
        # Groups run along input channels, within one place of a kernel.
        columns = shape[2]
        return f"{self.of} does not divide its {columns} columns (input channels)" if columns % self.of else None

    def units(self, shape: ViewShape) -> int:
        return shape[0] * shape[1] * shape[2] // self.of

    def unit_zeros(self, shape: ViewShape) -> int:
        return self.of - self.keep

    def pool(self, saliency: Tensor) -> Tensor:
        return saliency

    def by_cell(self, values: Tensor) -> Tensor:
        return values.reshape(-1, self.of, 1)

    def total(self, values: Tensor) -> Tensor:
        return values

    def strip(self, shape: ViewShape) -> Strip | None:
        return Strip(1, 1, shape)

    def cost(self, cells: Tensor) -> Tensor:
        groups, lowest = cells.reshape(-1, self.of), self._lowest(cells)
        if self.reduce == "max":
            return groups.masked_fill(~lowest, -torch.inf).amax(-1)
        total = (groups * lowest).sum(-1)
        return total / self.of if self.reduce == "mean" else total

    def _lowest(self, cells: Tensor) -> Tensor:
        """Per group its of - keep lowest cells, ties to the lower index: bool [groups, of]."""
        if self.of > _MOST_BY_RANK:
            order = cells.reshape(-1, self.of).argsort(dim=-1, stable=True)
            lowest = torch.zeros_like(order, dtype=torch.bool)
            return lowest.scatter_(1, order[:, : self.of - self.keep], True)
        # By rank, comparing column with column over all groups: many times quicker than sorting each.
        columns = cells.reshape(-1, self.of).t().contiguous()
        rank = torch.zeros_like(columns, dtype=torch.int8)
        for later in range(1, self.of):
            for earlier in range(later):
                first = columns[earlier] <= columns[later]
                rank[later] += first.view(torch.int8)
                rank[earlier] += (~first).view(torch.int8)
        return (rank < self.of - self.keep).t()

    def tiles(self, view: Tensor) -> Tensor:
        return view

    def small_mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        return ~(self._lowest(cells) & pruned.unsqueeze(1)).reshape(shape)

    def mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        return self.small_mask(pruned, cells, shape)

    def empty_units(self, keep: Tensor) -> Tensor:
        return keep.reshape(-1, self.of).sum(-1) <= self.keep

    def legal(self, keep: Tensor) -> bool:
        kept = keep.reshape(-1, self.of).sum(-1)
        return bool(((kept <= self.keep) | (kept == self.of)).all())


def shape_of(view: Tensor) -> ViewShape:
    """(rows, positions, columns) of a view."""
    rows, positions, columns = view.shape
    return rows, positions, columns


def _side(text: str) -> int | Literal["channel"]:
    return "channel" if text == "channel" else int(text)


def parse(name: str) -> Pattern:
    """The pattern of that name: `4x1`, `1xchannel`, `2:4`.

    Raises:
        SparsityError: the name is of neither form, or its numbers make no pattern.
    """
    if match := re.fullmatch(r"(\d+):(\d+)", name):
        return NofM(int(match.group(1)), int(match.group(2)))
    if match := re.fullmatch(r"(\d+|channel)x(\d+|channel)", name):
        return Block(_side(match.group(1)), _side(match.group(2)))
    raise SparsityError(f"{name}: not a pattern; a block is written 4x1 or 1xchannel, an N:M pattern 2:4")
