"""SparseGPT: the remaining weights compensate for the pruned ones. Frantar and Alistarh 2023, arXiv:2301.00774."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.patterns import Pattern, shape_of
from hydraprune.sparsity.posttraining.activations import gather_block, model_blocks_of, products, refuse_convolutions
from hydraprune.sparsity.posttraining.base import MaskDecision, PostTraining, PruningTask
from hydraprune.sparsity.selection import cheapest
from hydraprune.sparsity.validation import check_number, check_whole

# A damping that is negligible beside that of any input that is used.
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class SparseGpt(PostTraining):
    """Columns are pruned from the first to the last; those after one compensate for what it loses.

    A unit costs the squared error on the calibration inputs: w A^-1 w of each of its rows, where A is
    the part of the inverse Hessian that belongs to its columns, those before them taken out; w^2 / d^2
    for a single column. Units compete within a stretch of columns at a time, and every stretch loses
    the same share; the columns of an N:M group are chosen when it is reached. Errors of different
    layers are not comparable, so `scope=global` means local here. Blocks of the model are pruned one
    after the other, so that each sees what the pruned ones give.

    Args:
        damping: added to the Hessian's diagonal, as a share of its mean; above 0.
        columns: most columns of a stretch, which is the largest multiple of the pattern's width up to this.

    Raises:
        SparsityError: a number is out of range.
    """

    damping: float = 0.01
    columns: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("damping", self.damping, 0, float("inf"))
        check_whole("columns", self.columns, 1)

    @property
    def per_layer(self) -> bool:
        return True

    def check(self, structures: Sequence[Structure]) -> None:
        refuse_convolutions(self, structures)
        for structure in structures:
            pattern = structure.members[0].pattern
            if len(structure.members) > 1 or pattern.unit_columns is None:
                what = "a unit of several weights" if len(structure.members) > 1 else pattern.name
                raise self.refusal(
                    f"{what} leaves no column of a row to compensate for the others",
                    cure="choose another pattern, or pruner=wanda",
                )

    def rounds(self, structures: Sequence[Structure]) -> list[list[int]]:
        return model_blocks_of(structures)

    def decide(self, task: PruningTask, indices: Sequence[int]) -> list[MaskDecision]:
        moments = gather_block(task, indices, self.batches, products)
        return [self._decide(task, index, *moments[index]) for index in indices]

    def _decide(self, task: PruningTask, index: int, moment: Tensor) -> MaskDecision:
        (member,) = task.structures[index].members
        factor = inverse_factor(moment, self.damping)
        if factor is None:
            raise self.refusal(
                f"inputs of {member.weight.name} are too similar to invert their Hessian",
                cure=f"raise pruner.damping={self.damping}",
            )
        layer = Layer(member.values.squeeze(1).to(moment.dtype), factor, member.pattern, task.empty[index])
        keep, pruned = layer.prune(task.goals[index], self.columns)
        weights = layer.weights.unsqueeze(1).to(member.values.dtype)
        return MaskDecision(index, pruned, (keep.unsqueeze(1),), (weights,))


def inverse_factor(hessian: Tensor, damping: float) -> Tensor | None:
    """Upper triangular U with U^T U the inverse of a damped Hessian, [columns, columns].

    An input that is always zero is damped by a negligible amount, so that its weights are pruned
    first; they neither compensate for others nor need compensation.

    Returns:
        None where the Hessian is singular in spite of the damping.
    """
    diagonal = hessian.diagonal()
    added = torch.where(diagonal > 0, damping, damping * _NEGLIGIBLE) * diagonal.mean()
    damped = hessian + torch.diag_embed(added if bool(diagonal.any()) else torch.ones_like(added))
    lower, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed):
        return None
    factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if bool(failed) else factor


class Layer:
    """One weight while SparseGPT prunes it.

    Args:
        weights: [rows, columns]; copied.
        factor: see `inverse_factor`.
        pattern: with `unit_columns`.
        empty: units to prune in any case, bool, flat [units].
    """

    def __init__(self, weights: Tensor, factor: Tensor, pattern: Pattern, empty: Tensor) -> None:
        self.weights, self.factor, self.pattern = weights.clone(), factor, pattern
        assert pattern.unit_columns is not None  # as `SparseGpt.check` makes sure
        self.width = pattern.unit_columns
        # Units as a grid: rows of units, side by side.
        self.empty = empty.reshape(-1, weights.shape[1] // self.width)
        self.zero = weights == 0

    def prune(self, goal: int, columns: int) -> tuple[Tensor, Tensor]:
        """Prune `goal` units and change the weights that stay.

        Returns:
            (kept weights, bool [rows, columns]; pruned units, bool, flat [units])
        """
        total, width = self.weights.shape[1], max(1, columns // self.width) * self.width
        keeps, grids, done = [], [], 0
        for start in range(0, total, width):
            stretch = slice(start, min(start + width, total))
            units = self.empty[:, start // self.width : stretch.stop // self.width]
            later = self.empty[:, stretch.stop // self.width :]
            # An equal share of every stretch, as far as units that are empty there and later allow.
            wanted = goal * stretch.stop // total - done
            least = max(int(units.sum()), goal - done - later.numel())
            count = min(max(wanted, least), units.numel(), goal - done - int(later.sum()))
            pruned, keep = self._stretch(stretch, units, count)
            done += count
            grids.append(pruned)
            keeps.append(keep)
        return torch.cat(keeps, 1), torch.cat(grids, 1).flatten()

    def _stretch(self, stretch: slice, empty: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Prune a stretch of columns; all columns after each compensate for it.

        Returns:
            (pruned units, bool, as a grid; kept weights, bool)
        """
        weights, factor = self.weights[:, stretch], self.factor[stretch, stretch]
        shape = (len(weights), 1, weights.shape[1])
        cells = self._cells(weights, factor, stretch)
        costs = self._costs(weights, factor, cells).float()
        if not bool(costs.isfinite().all()):
            raise SparsityError(
                "a cost is not finite", key="pruner", value="sparse_gpt", cure="look for NaN or infinite weights"
            )
        pruned = cheapest(costs.masked_fill(empty.flatten(), -torch.inf), count)
        keep = self.pattern.mask(pruned, cells, shape).squeeze(1)
        errors = torch.zeros_like(weights)
        for column in range(weights.shape[1]):
            if self.pattern.scores_weights and column % self.width == 0:
                # Chosen only now: the columns before have changed the group.
                group = slice(column, column + self.width)
                columns = slice(stretch.start + column, stretch.start + column + self.width)
                cells = self._cells(weights[:, group], factor[group, group], columns)
                chosen = pruned.reshape(empty.shape)[:, column // self.width]
                keep[:, group] = self.pattern.mask(chosen, cells, (len(weights), 1, self.width)).squeeze(1)
            error = weights[:, column] * ~keep[:, column] / factor[column, column]
            weights[:, column:] -= error.unsqueeze(1) * factor[column, column:]
            weights[:, column] *= keep[:, column]  # exactly zero, not nearly
            errors[:, column] = error
        self.weights[:, stretch.stop :] -= errors @ self.factor[stretch, stretch.stop :]
        return pruned.reshape(empty.shape), keep

    def _cells(self, weights: Tensor, factor: Tensor, stretch: slice) -> Tensor:
        """What each weight costs by itself, as cells of a view [rows, 1, columns]; zeros of empty units cost least."""
        costs = (weights / factor.diagonal()).square().unsqueeze(1)
        if self.pattern.scores_weights:
            empty = self.empty[:, stretch.start // self.width : stretch.stop // self.width].flatten()
            zeros = self.pattern.spread(empty, shape_of(costs)) & self.zero[:, stretch].unsqueeze(1)
            costs = costs.masked_fill(zeros, -1.0)
        return self.pattern.to_cells(costs)

    def _costs(self, weights: Tensor, factor: Tensor, cells: Tensor) -> Tensor:
        """What each unit costs, flat [units]."""
        if self.pattern.scores_weights:
            return self.pattern.cost(cells)
        across = weights.shape[1] // self.width
        # The diagonal blocks of the factor, one for the columns of each unit.
        blocks = factor.reshape(across, self.width, across, self.width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        grouped = weights.reshape(len(weights), across, self.width).permute(1, 2, 0)
        errors: Tensor = torch.linalg.solve_triangular(blocks.transpose(1, 2), grouped, upper=False)
        rows = self.empty.shape[0]
        costs: Tensor = errors.square().sum(1).reshape(across, rows, -1).sum(2)
        return costs.t().flatten()
