"""The live blocks of a weight in training: 4 rows and one column that hold a live weight."""

from __future__ import annotations

import torch
from torch import Tensor

from hydraprune.kernels.packing import PackedLinear, Part

# Rows of a block, as in live_blocks.h.
ROWS = 4


def live_blocks(live: Tensor) -> Tensor:
    """bool [outputs / 4, inputs], the blocks of 4 rows and one column that hold a live weight.

    Args:
        live: bool [outputs, inputs]; outputs are a multiple of 4.
    """
    return live.view(-1, ROWS, live.shape[1]).any(1)


class LiveBlocks:
    """Where the live blocks of a weight lie, and room for their values.

    Args:
        live: bool [outputs, inputs], of the weights that are not masked; outputs are a multiple of 4.
    """

    def __init__(self, live: Tensor) -> None:
        outputs, inputs = live.shape
        blocks = live_blocks(live)
        self.groups, self.columns = blocks.nonzero().unbind(1)
        # int32, as the kernels read them.
        start = torch.zeros(len(blocks) + 1, dtype=torch.int32)
        start[1:] = blocks.sum(1).cumsum(0)
        rows = torch.arange(outputs, dtype=torch.int32).view(-1, ROWS)
        self.values = torch.zeros(len(self.columns), ROWS)
        self.packed = PackedLinear(
            (outputs, inputs), (Part(rows, start, self.columns.int(), self.values),), torch.zeros(outputs)
        )
        keep = self.gather(live)
        self.keep: Tensor | None = None if bool(keep.all()) else keep

    def __len__(self) -> int:
        return len(self.columns)

    def gather(self, dense: Tensor) -> Tensor:
        """The entries of a tensor like the weight in live blocks, [blocks, 4]."""
        return dense.reshape(-1, ROWS, dense.shape[1])[self.groups, :, self.columns]

    def gather_live(self, dense: Tensor) -> Tensor:
        """The same with 0 for masked weights: a moment that is left of one would move it off 0."""
        values = self.gather(dense)
        return values if self.keep is None else values * self.keep

    def scatter(self, values: Tensor) -> Tensor:
        """A tensor like the weight with these values in its live blocks, and 0 elsewhere."""
        dense = values.new_zeros(self.packed.shape).view(-1, ROWS, self.packed.shape[1])
        dense[self.groups, :, self.columns] = values
        return dense.view(self.packed.shape)
