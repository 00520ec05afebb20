"""How does a mask become the next one? At once, or in parts, weight by weight within a block.

The parts lead up to an update of the schedule: its choice is made some strides earlier, and at the
update itself all of it is in force. So at every update of the schedule, the last one included, the
mask is the full one; between two updates blocks may be partly zero.
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
from hydraprune.sparsity.patterns import Block, ViewShape
from hydraprune.sparsity.selection import cheapest


@dataclass(frozen=True)
class AtOnce:
    """An update's mask is in force with the update."""

    parts: ClassVar[int] = 1


@dataclass(frozen=True)
class Progressive:
    """The newly pruned weights go in `parts` equal parts. Neural Compressor's progressive pruning.

    Args:
        parts: how many.
        order: by `scores`, the weights worth least first, over all layers that compete; or
            `linear`, along the longer side of each block.

    Raises:
        SparsityError: there is nothing to part, or an unknown order.
    """

    parts: int = 4
    order: Literal["scores", "linear"] = "scores"

    def __post_init__(self) -> None:
        if isinstance(self.parts, bool) or not isinstance(self.parts, int) or not 2 <= self.parts <= 100:
            raise SparsityError(f"parts={self.parts}: must be a whole number from 2 to 100")
        if self.order not in ("scores", "linear"):
            raise SparsityError(f"order={self.order}: must be scores or linear")

    def check(self, members: Sequence[Member]) -> None:
        """Refuse what cannot be parted in this order.

        Raises:
            SparsityError: a block's longer side is not divided by the number of parts, or is no block's.
        """
        for member in members if self.order == "linear" else ():
            side = _longer_side(member)
            if side is None:
                raise SparsityError(f"order=linear: {member.pattern.name} has no blocks to cross; use order=scores")
            if side % self.parts:
                raise SparsityError(
                    f"parts={self.parts}: does not divide the longer side of {member.pattern.name} blocks, {side} in "
                    f"{member.weight.name}; use order=scores, or a divisor of it"
                )


Transition = AtOnce | Progressive


def _longer_side(member: Member) -> int | None:
    block = member.pattern
    if not isinstance(block, Block):
        return None
    height, width = _sides(block, member.weight.view_shape)
    return max(height, width)


def _sides(block: Block, shape: ViewShape) -> tuple[int, int]:
    rows, positions, columns = shape
    if block.rows == "channel":
        assert isinstance(block.cols, int)
        return rows * positions, block.cols
    return block.rows, positions * columns if block.cols == "channel" else block.cols


def linear_stages(member: Member, new: Tensor, parts: int) -> Tensor:
    """With which part (1..parts) each weight of a view goes, along the longer side of its block; 0 where not `new`."""
    block = member.pattern
    assert isinstance(block, Block)
    tiles = block.tiles(torch.empty(new.shape, device="meta")).shape
    height, width = _sides(block, member.weight.view_shape)
    # The axes of a tile that run down and across one block.
    down, across = (0, 2) if block.rows == "channel" else (1, 3)
    axis, side = (down, height) if height >= width else (across, width)
    along = torch.arange(side, device=new.device, dtype=torch.int64) * parts // side + 1
    shaped = along.reshape([side if i == axis else 1 for i in range(len(tiles))])
    stages: Tensor = shaped.expand(tiles).reshape(new.shape) * new
    return stages.to(torch.uint8)


def scored_stages(news: Sequence[Tensor], scores: Sequence[Tensor], parts: int) -> list[Tensor]:
    """The same by scores, over several layers: of n new weights the first int(n * i / parts) go by part i.

    Args:
        news: per layer the newly pruned weights, bool views.
        scores: per layer one float32 for each weight of the view; the lowest go first.
    """
    flat = torch.cat([new.flatten() for new in news])
    worth = torch.cat([score.flatten() for score in scores]).masked_fill(~flat, torch.inf)
    count, stages = int(flat.sum()), flat.to(torch.uint8) * parts
    for part in range(1, parts):
        # A weight that goes earlier is passed by all later parts: each takes one off its stage.
        stages -= cheapest(worth, int(Fraction(count * part, parts))).to(torch.uint8)
    pieces = torch.split(stages, [new.numel() for new in news])
    return [piece.reshape(new.shape) for piece, new in zip(pieces, news, strict=True)]
