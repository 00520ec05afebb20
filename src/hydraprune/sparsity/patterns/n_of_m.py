"""N:M groups of consecutive input channels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns.base import Reduce, Strip, ViewShape, check_reduce, positive

# Ranking compares all pairs of a group; above this size sorting is quicker.
_MOST_BY_RANK = 8


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
            if not positive(value):
                raise SparsityError(f"{key}={value}: must be a positive whole number")
        if self.keep >= self.of:
            raise SparsityError(f"keep={self.keep}: must be below of={self.of}; {self.keep}:{self.of} prunes nothing")
        check_reduce(self.reduce)

    @property
    def name(self) -> str:
        return f"{self.keep}:{self.of}"

    @property
    def share(self) -> Fraction:
        return Fraction(self.of - self.keep, self.of)

    @property
    def borders(self) -> tuple[int, int]:
        return 0, self.of

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
