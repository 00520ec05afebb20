"""What does the loss gain when a unit goes and its neighbours make up for it? Kurtic et al. 2022, arXiv:2203.07259."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, check_number, given, steps_remembered
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern, ViewShape
from hydraprune.sparsity.saliency_kernels import totals

# Numbers of Fisher blocks that are inverted at once: 128 MB in float64.
_AT_ONCE = 2**24


@dataclass(frozen=True)
class Fisher(Criterion):
    """The optimal brain surgeon's score of a unit Q: 1/2 w_Q' ([F^-1]_QQ)^-1 w_Q, as in oBERT.

    F is the empirical Fisher matrix damp * I + average of g g', block by block: a block holds whole
    units that are neighbours along the columns, at most `size` weights, and of N:M patterns a group
    (a part of one that is larger). The average is exponential over the steps, so each g is that of a
    mini-batch and not, as in the paper, one of a fixed sample; it begins at the first step's g g'.
    Pruned neighbours make up for nothing: they are left out of their block.

    A unit larger than `size` (a channel, a head) is a block by itself. Then the score is 1/2 w_Q' F w_Q,
    and F is kept along w only: damp * |w_Q|^2 + the average of (w_Q' g_Q)^2.

    What is scored is the unit as a whole, so the pattern's `reduce` has no say (of N:M patterns the
    weights of a group are scored one by one). The weights that stay are not corrected.

    Args:
        decay: of the average, at least 0 and below 1.
        damp: above 0; at least 4 roundings (float32) of a block's trace are taken in any case.
        size: most weights of one Fisher block; as many floats are remembered for each weight.

    Raises:
        SparsityError: one of them is out of range.
    """

    decay: float = 0.99
    damp: float = 1e-7
    size: int = 16

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0, 1, from_low=True)
        check_number("damp", self.damp, 0, math.inf)
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 256:
            raise SparsityError(f"size={self.size}: must be a whole number from 1 to 256")

    @property
    def horizon(self) -> int:
        return steps_remembered(self.decay)

    def _neighbours(self, across: int, weights: int) -> int:
        """How many units of so many weights, of `across` in a line, share a Fisher block; 0: they are too large."""
        return max((n for n in range(1, self.size // weights + 1) if across % n == 0), default=0)

    def _blocks(self, view: Tensor, pattern: Pattern) -> Tensor | None:
        """A view as [Fisher blocks, units of one, weights of one]; None when units are too large."""
        lines = pattern.by_cell(view)
        neighbours = self._neighbours(lines.shape[1], lines.shape[2])
        return lines.reshape(-1, neighbours, lines.shape[2]) if neighbours else None

    def memory_shape(self, shape: ViewShape, pattern: Pattern) -> torch.Size:
        blocks = self._blocks(torch.empty(shape, device="meta"), pattern)
        if blocks is None:
            return super().memory_shape(shape, pattern)
        side = blocks.shape[1] * blocks.shape[2]
        return torch.Size([blocks.shape[0], side, side])

    def remember(
        self,
        memory: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        olds: Sequence[Tensor | None] = [None] * len(weights) if memory is None else memory
        return [
            self._averaged(old, weight, gradient, pattern)
            for old, weight, gradient in zip(olds, weights, given(gradients), strict=True)
        ]

    def _averaged(self, old: Tensor | None, weight: Tensor, gradient: Tensor, pattern: Pattern) -> Tensor:
        blocks = self._blocks(gradient, pattern)
        if blocks is None:
            (along,) = totals([weight], [gradient], pattern)
            return along.square_() if old is None else old.lerp_(along.square_(), 1 - self.decay)
        flat = blocks.flatten(1).float()
        column, row = flat.unsqueeze(2), flat.unsqueeze(1)
        return column * row if old is None else old.mul_(self.decay).addcmul_(column, row, value=1 - self.decay)

    def scores(self, memory: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        return [self._scored(kept, weight.float(), pattern) for kept, weight in zip(memory, weights, strict=True)]

    def _scored(self, kept: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        blocks = self._blocks(weight, pattern)
        if blocks is None:
            squares = pattern.total(weight.square())
            # The average outlives a unit that is pruned; its own loss is nothing.
            return (kept + self.damp * squares).mul_(0.5) * (squares > 0)
        side = kept.shape[-1]
        pairs = zip(kept.split(max(1, _AT_ONCE // side**2)), blocks.split(max(1, _AT_ONCE // side**2)), strict=True)
        found = torch.cat([self._losses(fisher, part) for fisher, part in pairs])
        return found.reshape(super().memory_shape((weight.shape[0], weight.shape[1], weight.shape[2]), pattern))

    def _losses(self, fisher: Tensor, weights: Tensor) -> Tensor:
        """Losses of the units [blocks, units] of some Fisher blocks [blocks, side, side], float32."""
        count, units, size = weights.shape
        precise = torch.float32 if fisher.device.type == "mps" else torch.float64
        living = (weights != 0).reshape(count, -1).to(precise)
        matrix = fisher.to(precise) * living.unsqueeze(2) * living.unsqueeze(1)
        trace = matrix.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        # The average of few g g' has a rank of few, and float32 rounds it to below zero elsewhere.
        damp = (trace * (4 * torch.finfo(torch.float32).eps)).clamp(min=self.damp)
        matrix.diagonal(dim1=1, dim2=2).add_(damp)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)
        own = inverse.reshape(count, units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
        # w' (L L')^-1 w is the square of L^-1 w, never below zero.
        lower = torch.linalg.cholesky_ex(own).L
        solved = torch.linalg.solve_triangular(lower, weights.to(precise).unsqueeze(-1), upper=False)
        losses: Tensor = solved.squeeze(-1).square().sum(-1) / 2
        return losses.float()
