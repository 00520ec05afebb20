"""The gradient of one mask value per unit, decaying: Neural Compressor's criterion `block_mask`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, add_decayed, given
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.saliency_kernels import totals
from hydraprune.sparsity.validation import check_number


@dataclass(frozen=True)
class BlockMask(Criterion):
    """S <- decay * S + |dL/dm| over the steps so far, from S = 0; m = 1 is one factor on all weights of a block.

    Michel et al. 2019, arXiv:1905.10650, for any block, as in Neural Compressor 2.6. dL/dm is the sum of
    w * g over the block, so no layer's forward pass is replaced. It is signed before the absolute
    value is taken: weights of a block that pull against each other count for little, whereas
    `SnipMomentum` adds up what each is worth. The pattern's `reduce` has no effect. In N:M patterns
    every weight has an m of its own, which is `SnipMomentum` again.

    Args:
        decay: of the old score, at least 0 and below 1.

    Raises:
        SparsityError: it is not.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0, 1, from_low=True)

    def update_state(
        self,
        state: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        cells = totals(weights, given(gradients), pattern)
        torch._foreach_abs_(cells)
        return add_decayed(state, cells, self.decay)
