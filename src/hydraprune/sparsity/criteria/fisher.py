"""Second-order pruning by the empirical Fisher matrix (oBERT). Kurtic et al. 2022, arXiv:2203.07259."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, given
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns import Pattern, ViewShape, shape_of
from hydraprune.sparsity.precision import wide
from hydraprune.sparsity.saliency_kernels import totals
from hydraprune.sparsity.validation import check_number, check_whole

# Most entries of Fisher blocks that are inverted in one call: 128 MB in float64.
_ENTRIES = 2**24
# Times that the damping of a block is raised; 4 to this power is more than the whole range of float32 roundings.
_MOST_RAISES = 16


@dataclass(frozen=True)
class Fisher(Criterion):
    """The optimal brain surgeon's score of a unit Q: 1/2 w_Q' ([F^-1]_QQ)^-1 w_Q, as in oBERT.

    The score is what the loss gains when the unit is pruned and its neighbours compensate. F is the
    empirical Fisher matrix damp * I + average of g g', block by block: a Fisher block holds whole
    units that are neighbours along the columns, at most `size` weights; for N:M patterns it holds a
    group, or part of a larger one. The average is exponential over the steps, so each g is that of
    a mini-batch and not, as in the paper, of a fixed sample; it begins at the first step's g g'.
    Pruned neighbours cannot compensate: they are left out of their block.

    A unit larger than `size` (a channel, a head) is a block by itself. Then the score is 1/2 w_Q' F w_Q,
    and F is kept along w only: damp * |w_Q|^2 + the average of (w_Q' g_Q)^2.

    A unit is scored as a whole, so the pattern's `reduce` has no effect (in N:M patterns the weights
    of a group are scored one by one). The weights that stay are not corrected.

    Args:
        decay: of the average, at least 0 and below 1.
        damp: above 0; in any case as much is added as the average needs that is kept in float32: 4 roundings of a
            block's trace, and more where `decay` averages over more than 100 steps.
        size: most weights of one Fisher block, from 1 to 256; the state has as many floats for each weight.

    Raises:
        SparsityError: one of them is out of range.
    """

    decay: float = 0.99
    damp: float = 1e-7
    size: int = 16

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0, 1, from_low=True)
        check_number("damp", self.damp, 0, math.inf)
        check_whole("size", self.size, 1, 256)

    @property
    def _roundings(self) -> float:
        """The least damping, in roundings of a block's trace.

        The average of few g g' has a rank of few, and float32 rounds it to below zero elsewhere: by about two
        roundings where it is over 100 steps, and as errors of single steps add up, in proportion to the root of them.
        """
        return 4 * max(1.0, math.sqrt(1 / (1 - self.decay) / 100))

    def _cells_per_block(self, across: int, weights: int) -> int:
        """How many cells of `weights` weights, of `across` in a line, share a Fisher block; 0: they are too large."""
        return max((n for n in range(1, self.size // weights + 1) if across % n == 0), default=0)

    def _blocks(self, view: Tensor, pattern: Pattern) -> Tensor | None:
        """A view as [Fisher blocks, cells of a block, weights of a cell]; None where cells are too large."""
        lines = pattern.neighbours(view)
        together = self._cells_per_block(lines.shape[1], lines.shape[2])
        return lines.reshape(-1, together, lines.shape[2]) if together else None

    def state_shape(self, shape: ViewShape, pattern: Pattern) -> torch.Size:
        blocks = self._blocks(torch.empty(shape, device="meta"), pattern)
        if blocks is None:
            return super().state_shape(shape, pattern)
        side = blocks.shape[1] * blocks.shape[2]
        return torch.Size([blocks.shape[0], side, side])

    def update_state(
        self,
        state: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        olds: Sequence[Tensor | None] = [None] * len(weights) if state is None else state
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

    def scores(self, state: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        return [self._scored(fisher, weight.float(), pattern) for fisher, weight in zip(state, weights, strict=True)]

    def _scored(self, fisher: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        blocks = self._blocks(weight, pattern)
        if blocks is None:
            squares = pattern.sum_cells(weight.square())
            # The average is kept when a unit is pruned, but the unit's own loss is zero then.
            return (fisher + self.damp * squares).mul_(0.5) * (squares > 0)
        at_once = max(1, _ENTRIES // fisher.shape[-1] ** 2)
        pairs = zip(fisher.split(at_once), blocks.split(at_once), strict=True)
        losses = torch.cat([self._losses(some, values) for some, values in pairs])
        return losses.reshape(super().state_shape(shape_of(weight), pattern))

    def _losses(self, fisher: Tensor, weights: Tensor) -> Tensor:
        """Losses of the cells [blocks, cells] of some Fisher blocks [blocks, weights, weights], float32."""
        count, units, size = weights.shape
        precise = wide(fisher.device)
        nonzero = (weights != 0).reshape(count, -1).to(precise)
        matrix = fisher.to(precise) * nonzero.unsqueeze(2) * nonzero.unsqueeze(1)
        trace = matrix.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        damp = (trace * (self._roundings * torch.finfo(torch.float32).eps)).clamp(min=self.damp)
        inverse = torch.cholesky_inverse(_factor(matrix, damp))
        own = inverse.reshape(count, units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
        # w' (L L')^-1 w is the square of L^-1 w, never below zero.
        lower = torch.linalg.cholesky_ex(own).L
        solved = torch.linalg.solve_triangular(lower, weights.to(precise).unsqueeze(-1), upper=False)
        losses: Tensor = solved.squeeze(-1).square().sum(-1) / 2
        return losses.float()


def _factor(matrix: Tensor, damp: Tensor) -> Tensor:
    """The Cholesky factors of damped Fisher blocks [blocks, weights, weights]; `matrix` is written into.

    A block that is not positive definite in spite of its damping gets more of it, until it is.

    Args:
        damp: of each block, [blocks, 1].

    Raises:
        SparsityError: a block is not finite.
    """
    matrix.diagonal(dim1=1, dim2=2).add_(damp)
    lower, failed = torch.linalg.cholesky_ex(matrix)
    for _ in range(_MOST_RAISES):
        (bad,) = failed.nonzero(as_tuple=True)
        if not len(bad):
            return torch.as_tensor(lower)
        # To four times as much as so far.
        matrix[bad] += torch.diag_embed((3 * damp[bad]).expand(-1, matrix.shape[-1]))
        damp[bad] *= 4
        lower[bad], failed[bad] = torch.linalg.cholesky_ex(matrix[bad])
    raise SparsityError(
        "the average of gradients is not finite, or too uneven for its precision",
        key="pruner",
        value="fisher",
        cure="look for an infinite gradient, or raise pruner.damp",
    )
