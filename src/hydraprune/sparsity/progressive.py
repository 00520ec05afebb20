"""Transitions from one mask to the next: at once, or in several parts, weight by weight within a block.

The parts lead up to an update of the schedule: its units are chosen some steps earlier, and at the update all of them
are pruned. So at every update of the schedule, the last one included, the mask is one of whole units; between two
updates blocks may be partly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.selection import cheapest
from hydraprune.sparsity.validation import check_choice, check_whole


@dataclass(frozen=True)
class AtOnce:
    """All weights of an update are pruned at the update."""

    parts: ClassVar[int] = 1


@dataclass(frozen=True)
class Progressive:
    """The newly pruned weights go in `parts` equal parts. Neural Compressor's progressive pruning.

    Args:
        parts: how many, from 2 to 100.
        order: by `scores`, the weights worth least first, over all layers that compete; or
            `linear`, along the longer side of each block.

    Raises:
        SparsityError: `parts` is out of range, or the order is unknown.
    """

    parts: int = 4
    order: Literal["scores", "linear"] = "scores"

    def __post_init__(self) -> None:
        check_whole("parts", self.parts, 2, 100)
        check_choice("order", self.order, ("scores", "linear"))

    def check(self, members: Sequence[Member]) -> None:
        """Refuse patterns whose units cannot be pruned in parts in this order.

        Raises:
            SparsityError: units are not blocks, or the number of parts does not divide a block's longer side.
        """
        for member in members if self.order == "linear" else ():
            pattern = member.pattern
            block = None if pattern.scores_weights else pattern.unit_shape(member.weight.view_shape)
            if block is None:
                raise SparsityError(
                    f"{pattern.name} has no blocks to cross", key="order", value="linear", cure="use order=scores"
                )
            if max(block) % self.parts:
                raise SparsityError(
                    f"does not divide the longer side of {pattern.name} blocks, {max(block)} in {member.weight.name}",
                    key="parts",
                    value=self.parts,
                    cure="use order=scores, or a divisor of it",
                )


Transition = AtOnce | Progressive


def parts_along_blocks(member: Member, new: Tensor, parts: int) -> Tensor:
    """The part (1..parts) in which each weight of a view is pruned, along the longer side of its block.

    Args:
        new: the newly pruned weights, a bool view; the others get 0.

    Returns:
        uint8 like `new`.
    """
    shape = member.weight.view_shape
    block = member.pattern.unit_shape(shape)
    assert block is not None  # as `Progressive.check` makes sure
    height, width = block
    along = torch.arange(max(block), device=new.device, dtype=torch.int64) * parts // max(block) + 1
    across = along.unsqueeze(1) if height >= width else along.unsqueeze(0)
    numbers = across.expand(height, width).reshape(1, -1).expand(member.units, -1)
    return (member.pattern.from_units(numbers, shape) * new).to(torch.uint8)


def parts_by_scores(news: Sequence[Tensor], scores: Sequence[Tensor], parts: int) -> list[Tensor]:
    """The same by scores, over several layers: of n new weights the first int(n * i / parts) are pruned by part i.

    Args:
        news: per layer the newly pruned weights, bool views.
        scores: per layer one float32 for each weight of the view; the lowest are pruned first.
    """
    flat = torch.cat([new.flatten() for new in news])
    worth = torch.cat([score.flatten() for score in scores]).masked_fill(~flat, torch.inf)
    count, numbers = int(flat.sum()), flat.to(torch.uint8) * parts
    for part in range(1, parts):
        # All weights that are pruned by this part: each such part takes one off their number.
        numbers -= cheapest(worth, int(Fraction(count * part, parts))).to(torch.uint8)
    layers = torch.split(numbers, [new.numel() for new in news])
    return [layer.reshape(new.shape) for layer, new in zip(layers, news, strict=True)]
