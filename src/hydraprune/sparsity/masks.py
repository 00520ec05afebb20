"""How are masks kept and applied? As small as they broadcast over the weights, in one call for all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.views import Weight


class Masks:
    """The masks of some weights: which units of each are held at zero. None of them at first."""

    def __init__(self, pattern: Pattern, weights: Sequence[Weight]) -> None:
        self.pattern = pattern
        self.weights = tuple(weights)
        # Per weight, where it is masked at all: 1 keeps and 0 prunes; and whether that is shaped to
        # broadcast over the pattern's tiles, or like the weight.
        self.kept: list[Tensor | None] = [None] * len(self.weights)
        self.small = [False] * len(self.weights)

    def apply(self) -> None:
        """Set every masked weight to zero, in place."""
        targets, factors = [], []
        for weight, kept, small in zip(self.weights, self.kept, self.small, strict=True):
            if kept is not None:
                parameter = weight.parameter.detach()
                targets.append(self.pattern.tiles(weight.view(parameter)) if small else parameter)
                factors.append(kept)
        if targets:
            torch._foreach_mul_(targets, factors)

    def prune(self, index: int, pruned: Tensor, cells: Tensor) -> None:
        """Hold these units of a weight at zero, and no others. Arguments as of `Pattern.small_mask`."""
        weight = self.weights[index]
        keep = self.pattern.small_mask(pruned, cells, weight.view_shape)
        self.small[index] = self._broadcasts(weight)
        keep = keep if self.small[index] else self._whole(weight, keep)
        self.kept[index] = keep.to(weight.parameter.dtype)

    def whole(self, index: int) -> Tensor | None:
        """A weight's mask, bool, shaped like the parameter, True = keep; None before it is pruned."""
        kept = self.kept[index]
        if kept is None:
            return None
        return (self._whole(self.weights[index], kept) if self.small[index] else kept).bool()

    def _broadcasts(self, weight: Weight) -> bool:
        """Whether masks are kept small: not where tiles would be a copy of the weight (spatial convolutions).

        Nor on an accelerator, where one launch serves all layers whose masks have their weights' shapes.
        """
        parameter = weight.parameter.detach()
        tiles = self.pattern.tiles(weight.view(parameter))
        shared = tiles.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
        return parameter.device.type == "cpu" and shared

    def _whole(self, weight: Weight, keep: Tensor) -> Tensor:
        """`keep` (broadcastable to the pattern's tiles) shaped like the parameter."""
        tiles = self.pattern.tiles(weight.view(torch.empty(weight.parameter.shape, device="meta"))).shape
        view = keep.expand(tiles).reshape(weight.view_shape)
        return weight.layout.weight(view, weight.parameter.shape).contiguous()
