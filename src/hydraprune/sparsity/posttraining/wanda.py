"""Pruning by weights and activations (Wanda). Sun et al. 2023, arXiv:2306.11695."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.posttraining.activations import gather_block, model_blocks_of, refuse_convolutions, squares
from hydraprune.sparsity.posttraining.base import MaskDecision, PostTraining, PruningTask, decision
from hydraprune.sparsity.selection import cheapest


@dataclass(frozen=True)
class Wanda(PostTraining):
    """A weight costs |w| times the norm of its input over the calibration tokens; weights are not changed.

    Weights compete with those of their own row (output channel) and every row loses the same share:
    a remainder goes to the rows whose next unit is cheapest. For blocks a row is a row of blocks;
    where it holds a single unit (`1xchannel`, heads) or there is only one (`channelx1`), the whole
    layer competes. Norms of different layers are not comparable, so `scope=global` means local here.
    Blocks of the model are pruned one after the other, so that each sees what the pruned ones give.
    """

    @property
    def per_layer(self) -> bool:
        return True

    def check(self, structures: Sequence[Structure]) -> None:
        refuse_convolutions(self, structures)

    def rounds(self, structures: Sequence[Structure]) -> list[list[int]]:
        return model_blocks_of(structures)

    def decide(self, task: PruningTask, indices: Sequence[int]) -> list[MaskDecision]:
        moments = gather_block(task, indices, self.batches, squares)
        return [self._decide(task, index, moments[index]) for index in indices]

    def _decide(self, task: PruningTask, index: int, moments: Sequence[Tensor]) -> MaskDecision:
        structure = task.structures[index]
        cells = [_cells(member, moment) for member, moment in zip(structure.members, moments, strict=True)]
        costs = structure.cost(cells)
        if not bool(costs.isfinite().all()):
            raise SparsityError(f"{structure.name}: a weight is not finite")
        rows = 1 if len(structure.members) > 1 else _rows(structure.members[0])
        pruned = in_equal_shares(costs.reshape(rows, -1), task.goals[index], task.empty[index].reshape(rows, -1))
        return decision(index, pruned.flatten(), cells, structure)


def _cells(member: Member, moment: Tensor) -> Tensor:
    return member.pattern.to_cells(member.values.float().abs() * moment.sqrt().float())


def _rows(member: Member) -> int:
    """Rows of units that lose an equal share each; 1 where the whole layer competes."""
    rows, positions, columns = member.weight.view_shape
    unit = member.pattern.unit_shape(member.weight.view_shape)
    return 1 if unit is None or unit[1] == positions * columns else rows // unit[0]


def in_equal_shares(costs: Tensor, count: int, empty: Tensor) -> Tensor:
    """The cheapest units of every row: `count` in all, and the same number in each row as far as possible.

    Args:
        costs: [rows, units], finite.
        empty: bool like it: pruned in any case, so a row that has more of them than its share loses more.

    Returns:
        Bool like `costs`, True = prune.
    """
    units, least = costs.shape[1], empty.sum(1)
    share = bisect_right(range(units + 1), count, key=lambda s: int(least.clamp(min=s).sum())) - 1
    counts = least.clamp(min=share)
    ranked, order = costs.masked_fill(empty, -torch.inf).sort(dim=1, stable=True)
    # The next unit of each row; a row above its share has none to give, and neither has an empty one.
    following = ranked.gather(1, counts.clamp(max=units - 1).unsqueeze(1)).squeeze(1)
    following = following.masked_fill((least > share) | (counts == units), torch.inf)
    counts = counts + cheapest(following, count - int(counts.sum()))
    places = torch.arange(units, device=costs.device).unsqueeze(0)
    return torch.zeros_like(empty).scatter_(1, order, places < counts.unsqueeze(1))
