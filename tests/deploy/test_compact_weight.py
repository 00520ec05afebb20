"""Encoding of a matrix as a bitmap and values: laws over all shapes, and the sizes that it promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from hydraprune.deploy.compact_weight import BLOCK_ROWS, DTYPES, CompactWeight, damage, decode, encode, live_blocks

SIZES = st.integers(0, 19)
FINITE = st.floats(width=32, allow_nan=False)


@st.composite
def matrices(draw: Any, values: Any = FINITE) -> Tensor:
    """Float32 matrices: random, in blocks, empty or full."""
    rows, columns = draw(SIZES), draw(SIZES)
    weight = torch.from_numpy(draw(arrays(np.float32, (rows, columns), elements=values, fill=values)))
    block = draw(st.sampled_from([0, 1, 2, 4, 8, 16]))
    if not block:
        return weight
    groups = -(-rows // block)
    keep = torch.from_numpy(draw(arrays(np.bool_, (groups, columns))))
    return torch.where(keep.repeat_interleave(block, 0)[:rows], weight, 0.0)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32)


@given(matrices())
def test_single_precision_comes_back_bit_for_bit(weight: Tensor) -> None:
    compact = encode(weight)
    assert damage(compact) is None
    assert torch.equal(bits(decode(compact)), bits(weight + 0.0))  # -0.0 comes back as 0.0


@given(matrices(st.floats(-60000, 60000, width=32)), st.sampled_from(["fp16", "bf16"]))
def test_half_precision_rounds_each_value(weight: Tensor, precision: Any) -> None:
    compact = encode(weight, precision)
    assert damage(compact) is None
    assert compact.values.dtype == DTYPES[precision]
    assert torch.equal(decode(compact), weight.to(DTYPES[precision]).float())


@given(matrices())
def test_live_blocks_are_the_matrix_and_hold_no_empty_block(weight: Tensor) -> None:
    live = live_blocks(encode(weight))
    again = torch.zeros(weight.shape)
    for block, column, values in zip(live.blocks, live.columns, live.values, strict=True):
        assert bool((values != 0).any())
        for offset, value in enumerate(values):
            row = int(block) * len(values) + offset
            if row < len(again):
                again[row, int(column)] = value
    assert torch.equal(again, weight + 0.0)


@given(matrices())
def test_no_other_block_takes_fewer_bytes(weight: Tensor) -> None:
    compact = encode(weight)
    for size in BLOCK_ROWS:
        groups = -(-weight.shape[0] // size)
        padded = torch.zeros(groups * size, weight.shape[1])
        padded[: weight.shape[0]] = weight
        live = int((padded.view(groups, size, -1) != 0).any(1).sum()) if padded.numel() else 0
        assert compact.bytes <= -(-groups * weight.shape[1] // 8) + live * size * 4


@pytest.mark.parametrize(("precision", "ratio"), [("fp32", 9.2), ("bf16", 17.0), ("fp16", 17.0)])
@pytest.mark.parametrize("shape", [(256, 256), (1536, 384), (384, 1536)])
def test_4x1_at_90_percent_is_as_small_as_promised(shape: tuple[int, int], precision: Any, ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(shape[0] // 4, shape[1], generator=generator).flatten()
    keep = torch.zeros_like(score)
    keep[score.topk(score.numel() // 10).indices] = 1
    weight = torch.randn(shape, generator=generator) * keep.view(-1, shape[1]).repeat_interleave(4, 0)
    compact = encode(weight, precision)
    assert compact.block_rows == 4
    assert weight.numel() * 4 / compact.bytes >= ratio


@pytest.mark.parametrize("pattern", BLOCK_ROWS)
def test_the_block_is_that_of_the_pattern(pattern: int) -> None:
    keep = torch.rand(32 // pattern, 64, generator=torch.Generator().manual_seed(1)) < 0.1
    assert encode(keep.repeat_interleave(pattern, 0).float()).block_rows == pattern


def test_strided_and_half_precision_weights() -> None:
    weight = torch.randn(12, 10, generator=torch.Generator().manual_seed(2))
    assert torch.equal(decode(encode(weight.t()[::2])), weight.t()[::2])
    assert torch.equal(decode(encode(weight.half())), weight.half().float())
    assert torch.equal(decode(encode(weight.bfloat16(), "bf16")), weight.bfloat16().float())


@pytest.mark.parametrize("weight", [torch.zeros(3), torch.zeros(2, 2, 2), torch.zeros(2, 2, dtype=torch.int64)])
def test_what_is_no_matrix_of_floats_is_refused(weight: Tensor) -> None:
    with pytest.raises(ValueError, match="a matrix of floats is needed"):
        encode(weight)


def test_values_beyond_the_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond the range of fp16"):
        encode(torch.tensor([[1e6, 0.0]]), "fp16")


WEIGHT = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0], [0.0, 0.0, 4.0]])


def broken() -> dict[str, CompactWeight]:
    good = CompactWeight((3, 3), 2, torch.tensor([0b100101], dtype=torch.uint8), torch.ones(3, 2))
    good.values[2, 1] = 0
    assert damage(good) is None
    beyond = good.values.clone()
    beyond[2, 1] = 5
    return {
        "no such block": replace(good, block_rows=3),
        "a block of no rows": replace(good, block_rows=0),
        "negative shape": replace(good, shape=(-3, 3)),
        "immense shape": replace(good, shape=(10**12, 10**12)),
        "short bitmap": replace(good, bitmap=good.bitmap[:0]),
        "bitmap of floats": replace(good, bitmap=good.bitmap.float()),
        "bits behind the end": replace(good, bitmap=good.bitmap | 128),
        "a bit too many": replace(good, bitmap=good.bitmap | 2),
        "values too few": replace(good, values=good.values[:2]),
        "values of other blocks": replace(good, values=torch.ones(3, 4)),
        "values that are integers": replace(good, values=good.values.int()),
        "values beyond the last row": replace(good, values=beyond),
    }


@pytest.mark.parametrize("case", sorted(broken()))
def test_damage_is_found(case: str) -> None:
    assert damage(broken()[case]) is not None
