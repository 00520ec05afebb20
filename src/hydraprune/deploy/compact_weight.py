"""A matrix without its zeros: a bitmap that says which blocks of N output rows are live, and the values of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hydraprune.kernels.packing import dense_of_blocks

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Rows of a block.
BLOCK_ROWS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class CompactWeight:
    """A matrix [rows, columns] as docs/compact_format.md describes it.

    A block is N rows of one column; rows g * N to g * N + N - 1 are group g, and the last group may reach beyond the
    matrix.

    Args:
        shape: [rows, columns].
        block_rows: N.
        bitmap: uint8 [ceil(groups * columns / 8)]; bit k % 8, the lowest first, of byte k // 8 is that of block k,
            and block group * columns + column is 1 where it is live.
        values: float32, float16 or bfloat16 [live blocks, N], in the order of the bits; 0 beyond the matrix.
    """

    shape: tuple[int, int]
    block_rows: int
    bitmap: Tensor
    values: Tensor

    @property
    def groups(self) -> int:
        """Groups of rows."""
        return -(-self.shape[0] // self.block_rows)

    @property
    def bytes(self) -> int:
        """Size of bitmap and values in a file."""
        return self.bitmap.numel() + self.values.numel() * self.values.element_size()

    def live(self) -> npt.NDArray[np.bool_]:
        """Bool [groups, columns]: which blocks are live."""
        flags: npt.NDArray[np.bool_] = _bits(self).view(np.bool_).reshape(self.groups, self.shape[1])
        return flags


@dataclass(frozen=True, slots=True)
class LiveBlocks:
    """The live blocks of a matrix [rows, columns], by group and then by column.

    Args:
        shape: [rows, columns].
        blocks: int64 [live blocks], the group of each: its first row / N.
        columns: int64 [live blocks], the column of each.
        values: float32, float16 or bfloat16 [live blocks, N]; 0 in rows beyond the matrix.
    """

    shape: tuple[int, int]
    blocks: Tensor
    columns: Tensor
    values: Tensor


def encode(weight: Tensor, precision: Precision = "fp32") -> CompactWeight:
    """A matrix without its zeros, with the N of `BLOCK_ROWS` that takes fewest bytes.

    Values of a float32 matrix are kept bit for bit with `fp32`, except that -0.0 becomes 0.0.

    Args:
        weight: floats [rows, columns], on any device.
        precision: of the values.

    Raises:
        ValueError: it is no matrix of floats, or a value is too large for the precision.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"a matrix of floats is needed, not {weight.dtype} {list(weight.shape)}")
    # Adding 0.0 turns -0.0 into 0.0.
    dense = weight.detach().to(device="cpu", dtype=torch.float32) + 0.0
    rows, columns = dense.shape
    live = {size: _live(dense, size) for size in BLOCK_ROWS}
    block_bytes = DTYPES[precision].itemsize

    def cost(size: int) -> int:
        return -(-live[size].numel() // 8) + int(live[size].sum()) * size * block_bytes

    size = min(reversed(BLOCK_ROWS), key=cost)
    values = _in_groups(dense, size).transpose(1, 2)[live[size]].to(DTYPES[precision])
    if not bool(values.isfinite().all()) and bool(dense.isfinite().all()):
        raise ValueError(f"holds values beyond the range of {precision} ({float(dense.abs().max()):.3g})")
    packed = torch.from_numpy(np.packbits(live[size].numpy().reshape(-1), bitorder="little"))
    return CompactWeight((rows, columns), size, packed, values.contiguous())


def decode(compact: CompactWeight) -> Tensor:
    """The matrix, float32 [rows, columns]."""
    return dense_of_blocks(compact.shape, compact.live(), compact.values)


def live_blocks(compact: CompactWeight) -> LiveBlocks:
    """Place and values of every live block; the matrix itself is never made."""
    places = torch.from_numpy(np.flatnonzero(_bits(compact)))
    columns = max(1, compact.shape[1])
    return LiveBlocks(compact.shape, places // columns, places % columns, compact.values)


def damage(compact: CompactWeight) -> str | None:
    """Why bitmap and values are not those of a matrix of this shape; None if they are.

    It needs no more memory than a few times what the tensors have.
    """
    rows, columns = compact.shape
    if compact.block_rows not in BLOCK_ROWS or rows < 0 or columns < 0:
        return f"has a block of {compact.block_rows} rows in a matrix of {rows} x {columns}"
    blocks = compact.groups * columns
    bitmap, values = compact.bitmap, compact.values
    if bitmap.dtype != torch.uint8 or tuple(bitmap.shape) != (-(-blocks // 8),):
        return f"has a bitmap {list(bitmap.shape)} for {blocks} blocks"
    if values.dtype not in DTYPES.values() or values.dim() != 2 or values.shape[1] != compact.block_rows:
        return f"has values {values.dtype} {list(values.shape)} for blocks of {compact.block_rows} rows"
    if blocks % 8 and int(bitmap[-1]) >> blocks % 8:
        return "has bits behind the last block"
    if (count := int(_bits(compact).sum())) != len(values):
        return f"has {count} live blocks and the values of {len(values)}"
    inside = rows - (compact.groups - 1) * compact.block_rows
    if rows and inside < compact.block_rows:
        last = live_blocks(compact).blocks == compact.groups - 1
        if bool((values[last][:, inside:] != 0).any()):
            return "has values beyond its last row"
    return None


def _bits(compact: CompactWeight) -> Any:
    """One byte for every block, 1 where it is live (numpy)."""
    return np.unpackbits(compact.bitmap.numpy(), count=compact.groups * compact.shape[1], bitorder="little")


def _in_groups(dense: Tensor, size: int) -> Tensor:
    """[rows, columns] as [groups, size, columns], with rows of zeros at the end."""
    rows, columns = dense.shape
    groups = -(-rows // size)
    padded = torch.nn.functional.pad(dense, (0, 0, 0, groups * size - rows))
    return padded.view(groups, size, columns)


def _live(dense: Tensor, size: int) -> Tensor:
    """Bool [groups, columns]: blocks that hold a value other than 0."""
    return (_in_groups(dense, size) != 0).any(1)
