"""What may be zero together? Geometry of blocks, channels and N:M groups on a weight's view.

A pattern knows *units* (what is pruned as a whole: a block, or the prunable share of an N:M
group) and *cells* (the resolution at which a criterion keeps its scores: one per block, or one
per weight for N:M).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from torch import Tensor

from hydraprune.sparsity.errors import SparsityError

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

    @property
    def borders(self) -> tuple[int, int]:
        """Rows and columns from one border between units to the next, for pictures; 0: no border worth a line."""

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
        SparsityError: naming it.
    """
    if how not in ("mean", "sum", "max"):
        raise SparsityError(f"reduce={how}: how scores of one unit combine must be mean, sum or max")


def positive(value: object) -> bool:
    """Whether this is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
