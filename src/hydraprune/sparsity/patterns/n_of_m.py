"""N:M groups of consecutive input channels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns.base import ColumnSums, Pattern, Reduce, ViewShape, check_reduce
from hydraprune.sparsity.validation import is_whole

# Ranking compares all pairs of a group; above this size sorting is quicker.
_LARGEST_RANKED = 8


@dataclass(frozen=True)
class NofM(Pattern):
    """N:M sparsity: of every `of` consecutive columns in a row, at most `keep` stay.

    The hardware's reading (Mishra et al. 2021, arXiv:2104.08378): `2:4` keeps 2 of 4, `1:4` keeps
    1. A unit is a group. A target below (of-keep)/of leaves whole groups dense: that is how a
    schedule ramps.

    Args:
        keep, of: positive whole numbers, `keep` below `of`.
        reduce: how the scores of the weights that would go combine: mean, sum or max.

    Raises:
        SparsityError: one of them is something else.
    """

    keep: int
    of: int
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        for key, value in (("keep", self.keep), ("of", self.of)):
            if not is_whole(value, 1):
                raise SparsityError("must be a positive whole number", key=key, value=value)
        if self.keep >= self.of:
            raise SparsityError(f"must be below of={self.of}, or nothing would be pruned", key="keep", value=self.keep)
        check_reduce(self.reduce)

    @classmethod
    def parse(cls, name: str) -> NofM | None:
        """The pattern of that name, `2:4`; None where it is not the name of an N:M pattern."""
        match = re.fullmatch(r"(\d+):(\d+)", name)
        return cls(int(match.group(1)), int(match.group(2))) if match else None

    @property
    def name(self) -> str:
        return f"{self.keep}:{self.of}"

    @property
    def share(self) -> Fraction:
        return Fraction(self.of - self.keep, self.of)

    @property
    def unit_columns(self) -> int | None:
        return self.of

    @property
    def borders(self) -> tuple[int, int]:
        return 0, self.of

    def misfit(self, shape: ViewShape) -> str | None:
        # Groups run along input channels, within one position of a kernel.
        columns = shape[2]
        return f"{self.of} does not divide its {columns} columns (input channels)" if columns % self.of else None

    def to_units(self, view: Tensor) -> Tensor:
        return view.reshape(-1, self.of)

    def from_units(self, units: Tensor, shape: ViewShape) -> Tensor:
        return units.reshape(shape)

    def zeroed(self, scores: Tensor) -> Tensor:
        if self.of > _LARGEST_RANKED:
            return super().zeroed(scores.reshape(-1, self.of))
        # By rank, comparing column with column over all groups: many times quicker than sorting each.
        columns = scores.reshape(-1, self.of).t().contiguous()
        rank = torch.zeros_like(columns, dtype=torch.int8)
        for later in range(1, self.of):
            for earlier in range(later):
                first = columns[earlier] <= columns[later]
                rank[later] += first.view(torch.int8)
                rank[earlier] += (~first).view(torch.int8)
        return (rank < self.of - self.keep).t()

    def units(self, shape: ViewShape) -> int:
        return shape[0] * shape[1] * shape[2] // self.of

    def unit_zeros(self, shape: ViewShape) -> int:
        return self.of - self.keep

    def unit_shape(self, shape: ViewShape) -> tuple[int, int] | None:
        return 1, self.of

    def to_cells(self, saliency: Tensor) -> Tensor:
        # The view itself: groups are neighbours in it, so nothing has to be copied.
        return saliency

    def column_sums(self, shape: ViewShape) -> ColumnSums | None:
        return ColumnSums(1, 1, shape)
