"""How are masks kept and applied? As small as they broadcast over the weights, in one call for all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.groups import Member


class Masks:
    """The masks of some weights: which entries of each are held at zero. None of them at first."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        # Per weight, where it is masked at all: 1 keeps and 0 prunes; and whether that is shaped to
        # broadcast over the pattern's tiles, or like the weight.
        self.kept: list[Tensor | None] = [None] * len(self.members)
        self.small = [False] * len(self.members)

    def apply(self) -> None:
        """Set every masked weight to zero, in place."""
        targets, factors = [], []
        for member, kept, small in zip(self.members, self.kept, self.small, strict=True):
            if kept is not None:
                parameter = member.weight.parameter.detach()
                targets.append(member.pattern.tiles(member.weight.view(parameter)) if small else parameter)
                factors.append(kept)
        if targets:
            torch._foreach_mul_(targets, factors)

    def prune(self, index: int, pruned: Tensor, cells: Tensor) -> None:
        """Hold these units of a weight at zero, and no others. Arguments as of `Pattern.small_mask`."""
        member = self.members[index]
        keep = member.pattern.small_mask(pruned, cells, member.weight.view_shape)
        self.small[index] = _broadcasts(member)
        keep = keep if self.small[index] else _whole(member, keep)
        self.kept[index] = keep.to(member.weight.parameter.dtype)

    def hold(self, index: int, keep: Tensor) -> None:
        """Hold at zero what is False in `keep` (bool, shaped like the parameter), and nothing else."""
        self.small[index] = False
        self.kept[index] = keep.to(self.members[index].weight.parameter.dtype)

    def whole(self, index: int) -> Tensor | None:
        """A weight's mask, bool, shaped like the parameter, True = keep; None before it is pruned."""
        kept = self.kept[index]
        if kept is None:
            return None
        return (_whole(self.members[index], kept) if self.small[index] else kept).bool()

    def load(self, index: int, keep: Tensor) -> None:
        """Take over a mask of whole units, as `whole` gave it."""
        member = self.members[index]
        view = member.weight.view(keep)
        self.prune(index, member.pattern.empty_units(view), view.float())


def _broadcasts(member: Member) -> bool:
    """Whether masks are kept small: not where tiles would be a copy of the weight (spatial convolutions).

    Nor on an accelerator, where one launch serves all layers whose masks have their weights' shapes.
    """
    parameter = member.weight.parameter.detach()
    tiles = member.pattern.tiles(member.weight.view(parameter))
    shared = tiles.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
    return parameter.device.type == "cpu" and shared


def _whole(member: Member, keep: Tensor) -> Tensor:
    """`keep` (broadcastable to the pattern's tiles) shaped like the parameter."""
    weight = member.weight
    tiles = member.pattern.tiles(weight.view(torch.empty(weight.parameter.shape, device="meta"))).shape
    return weight.layout.weight(keep.expand(tiles).reshape(weight.view_shape), weight.parameter.shape).contiguous()
