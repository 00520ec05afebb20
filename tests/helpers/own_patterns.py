"""Patterns as a user would write them, with nothing but a name and the three methods that a pattern needs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from hydraprune.sparsity import Pattern, Reduce, ViewShape


@dataclass(frozen=True)
class Diagonal(Pattern):
    """The `side` wrapped diagonals of every side x side block, each of which is one unit."""

    side: int = 2
    reduce: Reduce = "mean"

    @property
    def name(self) -> str:
        return f"diagonal{self.side}"

    def misfit(self, shape: ViewShape) -> str | None:
        rows, positions, columns = shape
        if rows % self.side or positions * columns % self.side:
            return f"{self.side} does not divide its {rows} rows or {positions * columns} columns"
        return None

    def to_units(self, view: Tensor) -> Tensor:
        blocks = view.reshape(view.shape[0] // self.side, self.side, -1, self.side).movedim(2, 1)
        shifted = [blocks[:, :, i].roll(-i, -1) for i in range(self.side)]
        # Row i of a block, rolled so that each diagonal is a column.
        return torch.stack(shifted, -1).reshape(-1, self.side)

    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        rows, positions, columns = shape
        diagonals = units.reshape(rows // self.side, positions * columns // self.side, self.side, self.side)
        blocks = torch.stack([diagonals[..., i].roll(i, -1) for i in range(self.side)], -1).movedim(-1, -2)
        return blocks.movedim(1, 2).reshape(shape)


@dataclass(frozen=True)
class DownNofM(Pattern):
    """N:M along output channels: of every `of` consecutive rows of a column, at most `keep` stay."""

    keep: int = 2
    of: int = 4

    @property
    def name(self) -> str:
        return f"down{self.keep}of{self.of}"

    @property
    def share(self) -> Fraction:
        return Fraction(self.of - self.keep, self.of)

    def misfit(self, shape: ViewShape) -> str | None:
        return f"{self.of} does not divide its {shape[0]} rows" if shape[0] % self.of else None

    def to_units(self, view: Tensor) -> Tensor:
        return view.reshape(view.shape[0], -1).t().reshape(-1, self.of)

    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        return units.reshape(-1, shape[0]).t().reshape(shape)


@dataclass(frozen=True)
class PlainBlock(Pattern):
    """`Block` without its faster ways, for sides that are numbers."""

    rows: int
    cols: int
    reduce: Reduce = "mean"

    @property
    def name(self) -> str:
        return f"plain{self.rows}x{self.cols}"

    def misfit(self, shape: ViewShape) -> str | None:
        return None

    def to_units(self, view: Tensor) -> Tensor:
        grid = view.reshape(view.shape[0] // self.rows, self.rows, -1, self.cols)
        return grid.movedim(2, 1).reshape(-1, self.rows * self.cols)

    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        grid = units.reshape(shape[0] // self.rows, -1, self.rows, self.cols)
        return grid.movedim(1, 2).reshape(shape)


@dataclass(frozen=True)
class PlainNofM(Pattern):
    """`NofM` without its faster ways."""

    keep: int
    of: int
    reduce: Reduce = "mean"

    @property
    def name(self) -> str:
        return f"plain{self.keep}of{self.of}"

    @property
    def share(self) -> Fraction:
        return Fraction(self.of - self.keep, self.of)

    def misfit(self, shape: ViewShape) -> str | None:
        return None

    def to_units(self, view: Tensor) -> Tensor:
        return view.reshape(-1, self.of)

    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        return units.reshape(shape)
