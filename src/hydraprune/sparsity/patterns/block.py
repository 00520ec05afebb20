"""Blocks of a weight's view, whole channels among them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.patterns.base import ColumnSums, Pattern, Reduce, ViewShape, check_reduce, reduce_by, shape_of
from hydraprune.sparsity.validation import is_whole

Side = int | Literal["channel"]


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of `rows` x `cols` = (output, input) channels, each kept or zeroed whole.

    Either side may be the word `channel`: `1xchannel` zeroes output channels, `channelx1` input
    channels; of a convolution these are whole channels, at every position of the kernel. Other
    blocks tile the matrix [out, positions * in] in which input channels run fastest.

    Args:
        rows, cols: a positive whole number or `channel`; not both `channel`.
        reduce: how the scores of a block's weights combine: mean, sum or max.

    Raises:
        SparsityError: one of them is something else.
    """

    rows: Side
    cols: Side
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        for key, side in (("rows", self.rows), ("cols", self.cols)):
            if side != "channel" and not is_whole(side, 1):
                raise SparsityError("a block's side must be a positive whole number or 'channel'", key=key, value=side)
        if self.rows == self.cols == "channel":
            raise SparsityError(
                "with cols=channel this is the whole layer", key="rows", value="channel", cure="make one side a number"
            )
        check_reduce(self.reduce)

    @classmethod
    def parse(cls, name: str) -> Block | None:
        """The block of that name, `4x1` or `1xchannel`; None where it is not the name of a block."""
        match = re.fullmatch(r"(\d+|channel)x(\d+|channel)", name)
        return cls(_side(match.group(1)), _side(match.group(2))) if match else None

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.cols}"

    @property
    def unit_columns(self) -> int | None:
        return None if self.cols == "channel" else self.cols

    @property
    def whole_channels(self) -> bool:
        return "channel" in (self.rows, self.cols)

    @property
    def borders(self) -> tuple[int, int]:
        if self.rows == "channel" or self.cols == "channel":
            return 0, 0
        return self.rows if self.rows > 1 else 0, self.cols if self.cols > 1 else 0

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

    def weight_misfit(self, weight: Weight) -> str | None:
        if self.rows == "channel" and weight.groups > 1:
            # A column is an input channel of each group: none of them could be removed with the others in place.
            return (
                f"each of its {weight.groups} groups has input channels of its own; a unit would be one of every group"
            )
        if weight.packed > 1 and self.rows != "channel":
            rows = weight.view_shape[0] // weight.packed
            if rows % self.rows:
                return f"{self.rows} does not divide the {rows} rows of one of its {weight.packed} matrices"
        if weight.packed > 1 and self.rows == "channel":
            return f"a unit would be one input channel of all its {weight.packed} matrices"
        return super().weight_misfit(weight)

    def to_units(self, view: Tensor) -> Tensor:
        shape = shape_of(view)
        tiled = view.reshape(self._tiling(shape)[0])
        blocks = tiled.movedim(1, 0) if self.rows == "channel" else tiled.movedim(2, 1)
        return blocks.reshape(self.units(shape), -1)

    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        tiles, _, _ = self._tiling(shape)
        if self.rows == "channel":
            down, across, width = tiles
            return units.reshape(across, down, width).movedim(0, 1).reshape(shape)
        rows, height, across, width = tiles
        return units.reshape(rows, across, height, width).movedim(1, 2).reshape(shape)

    def units(self, shape: ViewShape) -> int:
        count = 1
        for side in self._tiling(shape)[2]:
            count *= side
        return count

    def unit_zeros(self, shape: ViewShape) -> int:
        rows, positions, columns = shape
        return rows * positions * columns // self.units(shape)

    def unit_shape(self, shape: ViewShape) -> tuple[int, int] | None:
        rows, positions, columns = shape
        if self.rows == "channel":
            assert isinstance(self.cols, int)
            return rows * positions, self.cols
        return self.rows, positions * columns if self.cols == "channel" else self.cols

    def to_cells(self, saliency: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(saliency))
        return reduce_by(saliency.reshape(tiles), inside, self.reduce)

    def sum_cells(self, values: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(values))
        return values.reshape(tiles).sum(inside)

    def neighbours(self, values: Tensor) -> Tensor:
        units = self.to_units(values)
        lines = 1 if self.rows == "channel" else values.shape[0] // self.rows
        return units.reshape(lines, len(units) // lines, -1)

    def column_sums(self, shape: ViewShape) -> ColumnSums | None:
        if self.cols != 1 or self.rows == "channel" or (self.reduce == "max" and self.rows > 1):
            return None
        rows, positions, columns = shape
        divisor = self.rows if self.reduce == "mean" else 1
        return ColumnSums(self.rows, divisor, (rows // self.rows, positions * columns))

    def spread(self, values: Tensor, shape: ViewShape) -> Tensor:
        tiles, _, grid = self._tiling(shape)
        return values.reshape(grid).expand(tiles).reshape(shape)

    def broadcast_view(self, view: Tensor) -> Tensor:
        return view.reshape(self._tiling(shape_of(view))[0])

    def broadcast_mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        return (~pruned).reshape(self._tiling(shape)[2])

    def empty_units(self, keep: Tensor) -> Tensor:
        tiles, inside, _ = self._tiling(shape_of(keep))
        return ~keep.reshape(tiles).any(inside[1]).any(inside[0]).flatten()

    def legal(self, keep: Tensor) -> bool:
        tiles, inside, _ = self._tiling(shape_of(keep))
        whole = keep.reshape(tiles).all(inside[1]).all(inside[0]).flatten()
        return bool((whole | self.empty_units(keep)).all())


def _side(word: str) -> Side:
    return "channel" if word == "channel" else int(word)
