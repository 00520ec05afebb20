"""What stays makes up for what goes (SparseGPT). Frantar and Alistarh 2023, arXiv:2301.00774."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.patterns import Block, NofM, Pattern
from hydraprune.sparsity.posttraining.activations import block_after_block, products, refuse_convolutions
from hydraprune.sparsity.posttraining.base import Choice, Orders, PostTraining
from hydraprune.sparsity.selection import cheapest

# Beside the usual size of an input.
_NOTHING = 1e-12


@dataclass(frozen=True)
class SparseGpt(PostTraining):
    """Columns are gone through from the first to the last; those after one make up for what it lost.

    The squared error on the calibration inputs is what a unit costs: w A^-1 w of each of its rows,
    A being the part of the inverse Hessian that belongs to its columns, those before them taken out;
    w^2 / d^2 for a single column. Units compete within some columns at a time, of which every
    stretch loses the same share; in an N:M group the columns that go are chosen when it is reached.
    Errors of different layers do not compare, so a scope of global means local here.

    Args:
        damping: added to the Hessian's diagonal, as a share of its mean.
        columns: that compete at a time; the largest multiple of the pattern's width up to this.

    Raises:
        SparsityError: a number is out of range.
    """

    damping: float = 0.01
    columns: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.damping, bool) or not 0.0 < self.damping < float("inf"):
            raise SparsityError(f"damping={self.damping}: must be above 0")
        if isinstance(self.columns, bool) or not isinstance(self.columns, int) or self.columns < 1:
            raise SparsityError(f"columns={self.columns}: must be a whole number of at least 1")

    @property
    def name(self) -> str:
        return "sparse_gpt"

    @property
    def per_layer(self) -> bool:
        return True

    def check(self, structures: Sequence[Structure]) -> None:
        refuse_convolutions(self.name, structures)
        for structure in structures:
            pattern = structure.members[0].pattern
            if len(structure.members) > 1 or (isinstance(pattern, Block) and pattern.cols == "channel"):
                what = "heads" if len(structure.members) > 1 else pattern.name
                raise SparsityError(
                    f"pruner=sparse_gpt: {what} leaves no column of a row to make up for the others; choose another "
                    f"pattern, or pruner=wanda"
                )

    def choices(self, orders: Orders) -> Iterator[Choice]:
        for index, (moment,) in block_after_block(orders, self.batches, products):
            (member,) = orders.structures[index].members
            view = member.weight.view(member.weight.parameter.detach())
            factor = inverse_factor(moment, self.damping)
            if factor is None:
                raise SparsityError(
                    f"pruner=sparse_gpt: inputs of {member.weight.name} are too alike to be told apart; raise "
                    f"pruner.damping={self.damping}"
                )
            layer = Layer(view.squeeze(1).to(moment.dtype), factor, member.pattern, orders.empty[index])
            keep, pruned = layer.prune(orders.goals[index], self.columns)
            weights = layer.weights.unsqueeze(1).to(view.dtype)
            yield Choice(index, pruned, (keep.unsqueeze(1),), (weights,))


def inverse_factor(hessian: Tensor, damping: float) -> Tensor | None:
    """Upper triangular U with U^T U the inverse of a damped Hessian, [columns, columns].

    An input that is always zero is damped by next to nothing, so that its weights go first; they
    neither make up for others nor need it.

    Returns:
        None where the Hessian is singular all the same.
    """
    diagonal = hessian.diagonal()
    added = torch.where(diagonal > 0, damping, damping * _NOTHING) * diagonal.mean()
    damped = hessian + torch.diag_embed(added if bool(diagonal.any()) else torch.ones_like(added))
    lower, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed):
        return None
    factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if bool(failed) else factor


class Layer:
    """One weight on its way through SparseGPT.

    Args:
        weights: [rows, columns]; written in place.
        factor: as of `inverse_factor`.
        empty: units that go in any case, bool, flat [units].
    """

    def __init__(self, weights: Tensor, factor: Tensor, pattern: Pattern, empty: Tensor) -> None:
        self.weights, self.factor, self.pattern = weights.clone(), factor, pattern
        self.width = _width(pattern)
        # Units as a grid: rows of them, and how many lie side by side.
        self.empty = empty.reshape(-1, weights.shape[1] // self.width)
        self.zero = weights == 0

    def prune(self, goal: int, columns: int) -> tuple[Tensor, Tensor]:
        """Take `goal` units away and change what stays.

        Returns:
            (what stays, bool [rows, columns]; which units went, bool, flat [units])
        """
        total, width = self.weights.shape[1], max(1, columns // self.width) * self.width
        keeps, gone, done = [], [], 0
        for start in range(0, total, width):
            stretch = slice(start, min(start + width, total))
            units = self.empty[:, start // self.width : stretch.stop // self.width]
            later = self.empty[:, stretch.stop // self.width :]
            # An equal share of every stretch, as far as what is empty there and later allows.
            wanted = goal * stretch.stop // total - done
            least = max(int(units.sum()), goal - done - later.numel())
            count = min(max(wanted, least), units.numel(), goal - done - int(later.sum()))
            pruned, keep = self._stretch(stretch, units, count)
            done += count
            gone.append(pruned)
            keeps.append(keep)
        return torch.cat(keeps, 1), torch.cat(gone, 1).flatten()

    def _stretch(self, stretch: slice, empty: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Prune some columns, and have all columns after each make up for it.

        Returns:
            (units that go, bool, as a grid; weights that stay, bool)
        """
        weights, factor = self.weights[:, stretch], self.factor[stretch, stretch]
        shape = (len(weights), 1, weights.shape[1])
        cells = self._cells(weights, factor, stretch)
        costs = self._costs(weights, factor, cells).float()
        if not bool(costs.isfinite().all()):
            raise SparsityError("pruner=sparse_gpt: a cost is not finite; look for NaN or infinite weights")
        pruned = cheapest(costs.masked_fill(empty.flatten(), -torch.inf), count)
        keep = self.pattern.mask(pruned, cells, shape).squeeze(1)
        errors = torch.zeros_like(weights)
        for column in range(weights.shape[1]):
            if isinstance(self.pattern, NofM) and column % self.width == 0:
                # Chosen anew: the columns before have changed the group.
                cells = self._cells(weights, factor, stretch)
                group = slice(column, column + self.width)
                keep[:, group] = self.pattern.mask(pruned, cells, shape).squeeze(1)[:, group]
            error = weights[:, column] * ~keep[:, column] / factor[column, column]
            weights[:, column:] -= error.unsqueeze(1) * factor[column, column:]
            weights[:, column] *= keep[:, column]  # not nearly zero
            errors[:, column] = error
        self.weights[:, stretch.stop :] -= errors @ self.factor[stretch, stretch.stop :]
        return pruned.reshape(empty.shape), keep

    def _cells(self, weights: Tensor, factor: Tensor, stretch: slice) -> Tensor:
        """What each weight costs by itself, [rows, 1, columns]; those that are to stay zero least."""
        costs = (weights / factor.diagonal()).square()
        empty = self.empty[:, stretch.start // self.width : stretch.stop // self.width]
        if isinstance(self.pattern, NofM):
            costs = costs.masked_fill(empty.repeat_interleave(self.width, 1) & self.zero[:, stretch], -1.0)
        return costs.unsqueeze(1)

    def _costs(self, weights: Tensor, factor: Tensor, cells: Tensor) -> Tensor:
        """What each unit costs, flat [units]."""
        if isinstance(self.pattern, NofM):
            return self.pattern.cost(cells)
        across = weights.shape[1] // self.width
        # The diagonal blocks of the factor, one for each group of columns.
        blocks = factor.reshape(across, self.width, across, self.width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        grouped = weights.reshape(len(weights), across, self.width).permute(1, 2, 0)
        errors: Tensor = torch.linalg.solve_triangular(blocks.transpose(1, 2), grouped, upper=False)
        rows = self.empty.shape[0]
        costs: Tensor = errors.square().sum(1).reshape(across, rows, -1).sum(2)
        return costs.t().flatten()


def _width(pattern: Pattern) -> int:
    """Columns of one unit."""
    if isinstance(pattern, NofM):
        return pattern.of
    assert isinstance(pattern, Block)
    assert isinstance(pattern.cols, int)
    return pattern.cols
