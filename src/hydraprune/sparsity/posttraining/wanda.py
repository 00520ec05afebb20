"""Pruning by weights and activations (Wanda). Sun et al. 2023, arXiv:2306.11695."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.patterns import Block
from hydraprune.sparsity.posttraining.activations import block_after_block, refuse_convolutions, squares
from hydraprune.sparsity.posttraining.base import Choice, Orders, PostTraining, chosen
from hydraprune.sparsity.selection import cheapest


@dataclass(frozen=True)
class Wanda(PostTraining):
    """A weight costs |w| times the norm of its input over the calibration tokens; weights are not changed.

    Weights compete with those of their own row (output channel) and every row loses the same share:
    what does not divide goes where the next unit is cheapest. For blocks a row is one of unit rows;
    where it holds a single unit (`1xchannel`, heads) or there is but one (`channelx1`), the whole
    layer competes. Norms of different layers do not compare, so a scope of global means local here.
    """

    @property
    def name(self) -> str:
        return "wanda"

    @property
    def per_layer(self) -> bool:
        return True

    def check(self, structures: Sequence[Structure]) -> None:
        refuse_convolutions(self.name, structures)

    def choices(self, orders: Orders) -> Iterator[Choice]:
        for index, moments in block_after_block(orders, self.batches, squares):
            structure = orders.structures[index]
            cells = [_cells(member, moment) for member, moment in zip(structure.members, moments, strict=True)]
            costs = structure.cost(cells)
            if not bool(costs.isfinite().all()):
                raise SparsityError(f"{structure.name}: a weight is not finite")
            rows = 1 if len(structure.members) > 1 else _rows(structure.members[0])
            pruned = in_equal_shares(
                costs.reshape(rows, -1), orders.goals[index], orders.empty[index].reshape(rows, -1)
            )
            yield chosen(index, pruned.flatten(), cells, structure.members)


def _cells(member: Member, moment: Tensor) -> Tensor:
    weights = member.weight.view(member.weight.parameter.detach()).float()
    return member.pattern.pool(weights.abs() * moment.sqrt().float())


def _rows(member: Member) -> int:
    """Rows of units that lose an equal share each."""
    rows, pattern = member.weight.view_shape[0], member.pattern
    if not isinstance(pattern, Block):
        return rows
    return 1 if pattern.rows == "channel" or pattern.cols == "channel" else rows // pattern.rows


def in_equal_shares(costs: Tensor, count: int, empty: Tensor) -> Tensor:
    """The cheapest units of every row, `count` in all and as many in each as in the next.

    Args:
        costs: [rows, units], finite.
        empty: bool like it: go in any case, so a row that has more of them than its share loses more.

    Returns:
        Bool like `costs`, True = prune.
    """
    units, least = costs.shape[1], empty.sum(1)
    share = bisect_right(range(units + 1), count, key=lambda s: int(least.clamp(min=s).sum())) - 1
    counts = least.clamp(min=share)
    ranked, order = costs.masked_fill(empty, -torch.inf).sort(dim=1, stable=True)
    # The next unit of each row; a row above its share has none to give, nor has one that is all gone.
    following = ranked.gather(1, counts.clamp(max=units - 1).unsqueeze(1)).squeeze(1)
    following = following.masked_fill((least > share) | (counts == units), torch.inf)
    counts = counts + cheapest(following, count - int(counts.sum()))
    places = torch.arange(units, device=costs.device).unsqueeze(0)
    return torch.zeros_like(empty).scatter_(1, order, places < counts.unsqueeze(1))
