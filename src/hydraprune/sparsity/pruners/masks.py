"""Masks of a pruner's weights: stored as small as they broadcast, and applied to all layers in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.ownership import Ownership

# Masks are multiplied with the bits of weights: so 0 makes 0.0 of NaN, of an infinity and of a negative number too.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Masks:
    """Which entries of some weights are masked; none of them at first. Members go by their index."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.ownership = Ownership([member.weight for member in self.members])
        # Per weight, where it is masked at all: 1 keeps and 0 prunes; and whether that is shaped to
        # broadcast over the pattern's view of the weight, or like the weight.
        self.kept: list[Tensor | None] = [None] * len(self.members)
        self.small = [False] * len(self.members)
        # Per weight, where zeros that it had before training stay zero whatever the masks: False there, bool, shaped
        # like the weight; and the two together, as they are applied.
        self.fixed: list[Tensor | None] = [None] * len(self.members)
        self._both: list[Tensor | None] = [None] * len(self.members)
        self._zeros: int | None = None  # entries that are masked, where that was counted since masks changed

    def apply(self) -> None:
        """Set every masked weight to zero, in place.

        Raises:
            SparsityError: a weight is no longer the model's, masked or not.
        """
        self.ownership.check()
        targets, factors = [], []
        for member, kept, small, both in zip(self.members, self.kept, self.small, self._both, strict=True):
            factor = kept if both is None else both
            if factor is not None:
                view = small and both is None
                weights = member.pattern.broadcast_view(member.values) if view else member.weight.held
                targets.append(weights.view(factor.dtype))
                factors.append(factor)
        if targets:
            torch._foreach_mul_(targets, factors)

    def fix(self, index: int, keep: Tensor) -> None:
        """Keep at zero, from now on and under every mask, what is False in `keep` (bool, shaped like the parameter)."""
        self.fixed[index] = keep
        self._combine(index)

    def _combine(self, index: int) -> None:
        self._zeros = None
        fixed = self.fixed[index]
        if fixed is not None:
            whole = self.whole(index)
            self._both[index] = (fixed if whole is None else fixed & whole).to(_bits(self.members[index]))

    def prune(self, index: int, pruned: Tensor, cells: Tensor) -> None:
        """Mask these units of a weight, and no others. Arguments: see `Pattern.mask`."""
        member = self.members[index]
        keep = member.pattern.broadcast_mask(pruned, cells, member.weight.held_shape)
        self.small[index] = _broadcasts(member)
        keep = keep if self.small[index] else _whole(member, keep)
        self.kept[index] = keep.to(_bits(member))
        self._combine(index)

    def hold(self, index: int, keep: Tensor) -> None:
        """Mask what is False in `keep` (bool, shaped like the parameter), and nothing else."""
        self.small[index] = False
        self.kept[index] = keep.to(_bits(self.members[index]))
        self._combine(index)

    def whole(self, index: int) -> Tensor | None:
        """A weight's mask, bool, shaped like the parameter, True = keep; None before it is pruned."""
        kept = self.kept[index]
        if kept is None:
            return None
        return (_whole(self.members[index], kept) if self.small[index] else kept).bool()

    def applied(self, index: int) -> Tensor | None:
        """The same with the zeros that are fixed."""
        both = self._both[index]
        return self.whole(index) if both is None else both.bool()

    @property
    def zeros(self) -> int:
        """How many entries are masked, those that are fixed included."""
        if self._zeros is None:
            masks = [self.applied(index) for index in range(len(self.members))]
            self._zeros = sum(int((~mask).sum()) for mask in masks if mask is not None)
        return self._zeros

    def load(self, index: int, keep: Tensor) -> None:
        """Take over a mask of whole units, as `whole` returned it."""
        member = self.members[index]
        view = member.weight.view(keep)
        self.prune(index, member.pattern.empty_units(view), member.pattern.to_cells(view.float()))


def _bits(member: Member) -> torch.dtype:
    """The integers as wide as a weight's numbers."""
    return _BITS[member.weight.parameter.element_size()]


def _broadcasts(member: Member) -> bool:
    """Whether a mask is stored small: not where the pattern's view would be a copy of the weight.

    That is so for spatial convolutions. Nor on an accelerator, where one launch serves all layers whose
    masks have the shapes of their weights.
    """
    parameter = member.weight.held
    view = member.pattern.broadcast_view(member.weight.view(parameter))
    shared = view.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
    return parameter.device.type == "cpu" and shared


def _whole(member: Member, keep: Tensor) -> Tensor:
    """`keep` (broadcastable to the pattern's view) shaped like the parameter."""
    weight = member.weight
    empty = weight.view(torch.empty(weight.held.shape, device="meta"))
    shape = member.pattern.broadcast_view(empty).shape
    return weight.unview(keep.expand(shape).reshape(weight.held_shape)).contiguous()
