"""Packed weights hold what is not zero, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_helpers import sparse_weight
from sparsity_helpers import examples

from hydraprune.kernels.packing import PackedLinear, Precision, pack, pack_blocks, unpack


@given(
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from([1, 2, 3, 4, 8, 16]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from(["fp32", "bf16"]),
    st.integers(0, 2**31),
)
@examples(80)
def test_unpacking_gives_the_weight_back(
    outputs: int, inputs: int, rows: int, density: float, precision: Precision, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = sparse_weight(outputs, inputs, rows, density)
    packed = pack(weight, None, precision)
    assert torch.equal(unpack(packed), weight if precision == "fp32" else weight.bfloat16().float())
    assert sorted(torch.cat([part.rows.flatten() for part in packed.parts]).tolist()) == list(range(outputs))
    assert all(part.size in (1, 2, 4, 8) for part in packed.parts)
    assert all(int(part.start[-1]) == len(part.column) == len(part.value) for part in packed.parts)
    assert torch.equal(packed.bias, torch.zeros(outputs))


def tensors_of(packed: PackedLinear) -> list[torch.Tensor]:
    parts = [tensor for part in packed.parts for tensor in (part.rows, part.start, part.column, part.value)]
    return [*parts, packed.bias]


@given(
    st.integers(1, 40),
    st.integers(0, 70),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.sampled_from(["fp32", "bf16"]),
    st.integers(0, 2**31),
)
@examples(150)
def test_live_blocks_are_packed_as_the_weight_is(
    outputs: int, inputs: int, rows: int, density: float, size: int, more: bool, precision: Precision, seed: int
) -> None:
    """Blocks of any size for weights of any pattern, in which `more` single values are zero."""
    torch.manual_seed(seed)
    weight = sparse_weight(outputs, inputs, rows, density)
    if more:
        weight *= torch.rand(outputs, inputs) < 0.7
    groups = -(-outputs // size)
    grouped = torch.cat([weight, torch.zeros(groups * size - outputs, inputs)]).view(groups, size, inputs)
    live = (grouped != 0).any(1)
    found = pack_blocks((outputs, inputs), live.numpy(), grouped.transpose(1, 2)[live], None, precision)
    wanted = pack(weight, None, precision)
    assert found.shape == wanted.shape
    for one, other in zip(tensors_of(found), tensors_of(wanted), strict=True):
        assert one.dtype == other.dtype
        assert one.is_contiguous()
        assert torch.equal(one, other)


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_blocks_are_those_of_the_pattern(rows: int) -> None:
    torch.manual_seed(0)
    weight = sparse_weight(64, 256, rows, 0.1)
    packed = pack(weight, None)
    assert packed.parts[0].size == rows
    stored = sum(part.value.numel() for part in packed.parts)
    assert stored == weight.count_nonzero()


def test_channels_leave_no_zero_behind() -> None:
    """Whole rows and columns, wherever they lie."""
    torch.manual_seed(0)
    weight = torch.randn(48, 96)
    weight[torch.randperm(48)[:37]] = 0
    weight[:, torch.randperm(96)[:50]] = 0
    assert sum(part.value.numel() for part in pack(weight, None).parts) == weight.count_nonzero()


def test_memory_is_that_of_the_live_blocks() -> None:
    torch.manual_seed(0)
    weight = sparse_weight(1024, 256, 4, 0.1)
    blocks = int(weight.view(256, 4, 256).any(1).sum())
    assert pack(weight, None).bytes == blocks * (16 + 4) + 1024 * 4 + 257 * 4 + 1024 * 4


@pytest.mark.parametrize("weight", [torch.zeros(2, 2, 2), torch.zeros(2, 2, dtype=torch.int64)])
def test_what_is_no_weight_is_refused(weight: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a weight is a matrix of floats, not"):
        pack(weight, None)


def test_any_layout_and_type_of_weight() -> None:
    weight = sparse_weight(24, 40, 4, 0.3)
    for other in (weight.T.contiguous().T, weight.double(), torch.nn.Parameter(weight)):
        assert torch.equal(unpack(pack(other, None)), weight)
    assert torch.equal(unpack(pack(weight.half(), None)), weight.half().float())
    assert not unpack(pack(torch.full((4, 4), -0.0), None)).any()
