"""Blocks of a weight's view, whole channels among them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns.base import Reduce, Strip, ViewShape, check_reduce, positive, reduce_by, shape_of


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
            if side != "channel" and not positive(side):
                raise SparsityError(f"{key}={side}: a block's side must be a positive whole number or 'channel'")
        if self.rows == self.cols == "channel":
            raise SparsityError("rows=channel, cols=channel: that is the whole layer; make one side a number")
        check_reduce(self.reduce)

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.cols}"

    @property
    def share(self) -> Fraction:
        return Fraction(1)

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
        return reduce_by(saliency.reshape(tiles), inside, self.reduce)

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
