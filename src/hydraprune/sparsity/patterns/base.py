"""The contract of a pattern: which weights of a layer are zero together.

The terms of this package:

- *view*: a weight as [rows, positions, columns], see `layouts`. Patterns see nothing else.
- *unit*: what is pruned as a whole: a block, a channel, an N:M group.
- *cell*: what a criterion keeps one score for: a unit; or a single weight, where a pruned unit loses only some
  of its weights, as an N:M group does.
- *member*: a weight with its pattern; *structure*: members whose units are pruned together (`groups`).
- *pool*: structures that compete for one budget of units (`allocation`).

Masks are True where a weight is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.validation import check_choice

ViewShape = tuple[int, int, int]
Reduce = Literal["mean", "sum", "max"]


@dataclass(frozen=True)
class ColumnSums:
    """Cells that are sums over `rows` consecutive rows of one column, divided by `divisor`.

    Args:
        cells: the shape of all of them, as `Pattern.to_cells` returns it.
    """

    rows: int
    divisor: int
    cells: tuple[int, ...]


class Pattern(ABC):
    """A rule for which weights of a view are zero together. Immutable; no method writes into its arguments.

    A new pattern needs a `name` and three methods: `misfit`, `to_units` and `from_units`. Everything else follows
    from these. A pattern of which a pruned unit keeps some weights, such as N:M, also gives its `share`, and may
    override `zeroed`. The remaining methods are there to be overridden where a pattern has a faster way.
    """

    # How the scores of a unit's weights combine.
    reduce: Reduce = "mean"

    @property
    @abstractmethod
    def name(self) -> str:
        """Its usual name, made of its numbers: `4x1`, `1xchannel`, `2:4`."""

    @abstractmethod
    def misfit(self, shape: ViewShape) -> str | None:
        """Why the pattern does not fit a view of `shape`; None when it does."""

    def weight_misfit(self, weight: Weight) -> str | None:
        """Why the pattern does not fit a weight of a layer, such as a grouped convolution; None when it does."""
        return self.misfit(weight.view_shape)

    @abstractmethod
    def to_units(self, view: Tensor) -> Tensor:
        """A view [rows, positions, columns] as [units, weights of a unit]."""

    @abstractmethod
    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        """The inverse of `to_units`: [units, weights of a unit] as a view of `shape`."""

    def zeroed(self, scores: Tensor) -> Tensor:
        """Which weights of a unit are zero once it is pruned: here those of lowest score, ties to the lower index.

        Args:
            scores: [units, weights of a unit].

        Returns:
            Bool like `scores`.
        """
        order = scores.argsort(dim=-1, stable=True)
        zeroed = torch.zeros_like(scores, dtype=torch.bool)
        return zeroed.scatter_(1, order[:, : int(scores.shape[1] * self.share)], True)

    @property
    def share(self) -> Fraction:
        """The largest element sparsity that the pattern allows: 1 where a pruned unit loses all of its weights."""
        return Fraction(1)

    @property
    def scores_weights(self) -> bool:
        """Whether cells are single weights, since a pruned unit keeps some of its own."""
        return self.share < 1

    @property
    def unit_columns(self) -> int | None:
        """How many adjacent columns a unit covers; None if a view is not made of rows of equal units.

        If it is a number, a range of columns whose width is a multiple of it can be treated as a view of its own: it
        contains the same units in the same order. Each unit is a rectangle (a single row, where `scores_weights`).
        """
        return None

    @property
    def whole_channels(self) -> bool:
        """Whether a unit is made of whole output channels or whole input channels."""
        return False

    @property
    def borders(self) -> tuple[int, int]:
        """Rows and columns from one border between units to the next, for pictures; 0: no border worth a line."""
        return 0, 0

    def units(self, shape: ViewShape) -> int:
        """How many units a view of `shape` has."""
        return self.to_units(torch.empty(shape, device="meta")).shape[0]

    def unit_zeros(self, shape: ViewShape) -> int:
        """How many weights one pruned unit sets to zero."""
        return int(self.to_units(torch.empty(shape, device="meta")).shape[1] * self.share)

    def unit_shape(self, shape: ViewShape) -> tuple[int, int] | None:
        """Rows and columns of a unit in a view of `shape` seen as a matrix [rows, positions * columns].

        None where units are not rectangles that lie row by row, as `to_units` orders them and their weights.
        """
        return None

    def to_cells(self, saliency: Tensor) -> Tensor:
        """Per-weight saliency, a view, as the cells that a criterion keeps scores for: [units], or as `to_units`."""
        units = self.to_units(saliency)
        return units if self.scores_weights else reduce_by(units, (1,), self.reduce)

    def sum_cells(self, values: Tensor) -> Tensor:
        """The sum of a view's values over each cell, shaped like `to_cells`."""
        return self.to_cells(values) if self.scores_weights else self.to_units(values).sum(1)

    def neighbours(self, values: Tensor) -> Tensor:
        """A view as [lines, cells side by side in a line, weights of a cell].

        Cells are in the order of `to_cells`; those of a line are neighbours along the columns. Here every unit is a
        line of its own.
        """
        units = self.to_units(values)
        return units.unsqueeze(2) if self.scores_weights else units.unsqueeze(1)

    def column_sums(self, shape: ViewShape) -> ColumnSums | None:
        """How `to_cells` sums, where that is along single columns of a view of `shape`; None otherwise."""
        return None

    def cost(self, cells: Tensor) -> Tensor:
        """Cells -> what pruning each unit would lose, flat [units]."""
        if not self.scores_weights:
            return cells.flatten()
        zeroed = self.zeroed(cells)
        units = cells.reshape(zeroed.shape)
        if self.reduce == "max":
            return units.masked_fill(~zeroed, -torch.inf).amax(-1)
        total = (units * zeroed).sum(-1)
        return total / zeroed.shape[1] if self.reduce == "mean" else total

    def spread(self, values: Tensor, shape: ViewShape) -> Tensor:
        """One value for each unit, flat [units], as a view of `shape` that has it at every weight of the unit."""
        return self.from_units(values.unsqueeze(1).expand(-1, _per_unit(values, shape)), shape)

    def mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        """The mask of a view of `shape` in which some units are pruned.

        Args:
            pruned: bool, flat [units].
            cells: scores as `to_cells` shapes them; where `scores_weights`, they decide which weights of a unit go.
        """
        if not self.scores_weights:
            return self.spread(~pruned, shape)
        return ~self.from_units(self.zeroed(cells) & pruned.unsqueeze(1), shape)

    def broadcast_view(self, view: Tensor) -> Tensor:
        """A view reshaped so that `broadcast_mask` broadcasts over it; shares memory where torch can."""
        return view

    def broadcast_mask(self, pruned: Tensor, cells: Tensor, shape: ViewShape) -> Tensor:
        """The same as `mask`, as small as it broadcasts over `broadcast_view`."""
        return self.mask(pruned, cells, shape)

    def empty_units(self, keep: Tensor) -> Tensor:
        """Which units of a mask, a view, are pruned: bool, flat [units]."""
        units = self.to_units(keep)
        return units.sum(1) <= self._kept(units)

    def legal(self, keep: Tensor) -> bool:
        """Whether every zero of a mask, a view, belongs to a pruned unit."""
        units = self.to_units(keep)
        kept = units.sum(1)
        return bool(((kept <= self._kept(units)) | (kept == units.shape[1])).all())

    def filled(self, keep: Tensor) -> float:
        """The share of units of a mask, a view, that keep just as many weights as a pruned unit may."""
        units = self.to_units(keep)
        return float((units.sum(1) == self._kept(units)).float().mean())

    def _kept(self, units: Tensor) -> int:
        """How many weights a pruned unit keeps."""
        return units.shape[1] - int(units.shape[1] * self.share)

    def couple(self, weights: Sequence[Weight], family: Family) -> Mapping[str, Sequence[tuple[Weight, Pattern]]]:
        """Weights that are pruned together, with the pattern of each, by a name for them: here each by itself."""
        return {weight.name: [(weight, self)] for weight in weights}


def _per_unit(values: Tensor, shape: ViewShape) -> int:
    return shape[0] * shape[1] * shape[2] // len(values)


def shape_of(view: Tensor) -> ViewShape:
    """(rows, positions, columns) of a view."""
    rows, positions, columns = view.shape
    return rows, positions, columns


def reduce_by(values: Tensor, dims: tuple[int, ...], how: Reduce) -> Tensor:
    """`values` reduced over `dims`."""
    if how == "mean":
        return values.mean(dims)
    return values.sum(dims) if how == "sum" else values.amax(dims)


def check_reduce(how: str) -> None:
    """Refuse another word than mean, sum and max.

    Raises:
        SparsityError: with the word.
    """
    check_choice("reduce", how, ("mean", "sum", "max"))
