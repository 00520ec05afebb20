"""Linear layers of the kernels against PyTorch's, compiled for each kind of processor."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_helpers import TARGETS, difference, kernels, sparse_weight
from sparsity_helpers import examples
from torch.nn import functional as F

from hydraprune.kernels.linears import LinearKernel
from hydraprune.kernels.packing import pack

ACTIVATIONS = {
    None: lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
draw_shapes = given(
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(0, 150),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from(list(ACTIVATIONS)),
    st.integers(0, 2**31),
)


@pytest.mark.parametrize("target", TARGETS)
@draw_shapes
@examples(40)
def test_any_shape_pattern_and_activation(
    target: str, outputs: int, inputs: int, tokens: int, rows: int, density: float, activation: str | None, seed: int
) -> None:
    torch.manual_seed(seed)
    weight, bias = sparse_weight(outputs, inputs, rows, density), torch.randn(outputs)
    x = torch.randn(tokens, inputs)
    found = LinearKernel(pack(weight, bias), kernels(target), activation)(x)
    wanted = ACTIVATIONS[activation](F.linear(x, weight, bias))
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-4, atol=2e-5)
    kernel, whole = LinearKernel(pack(weight, bias), kernels(target), activation), tokens // 16 * 16
    tiles = kernel.tiles(x[:whole].view(-1, 16, inputs).transpose(1, 2))
    assert torch.equal(tiles.transpose(1, 2).reshape(whole, outputs), kernel(x[:whole]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_default_type_changes_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, x = sparse_weight(40, 64, 4, 0.3), torch.randn(32, 64)
    wanted = F.linear(x, weight)
    try:
        torch.set_default_dtype(dtype)
        kernel = LinearKernel(pack(weight, None), kernels())
        found, tiles = kernel(x), kernel.tiles(x.T[None].contiguous())
    finally:
        torch.set_default_dtype(torch.float32)
    assert difference(found, wanted) < 1e-5
    assert difference(tiles[0].T, wanted) < 1e-5


def test_threads_and_neighbours_do_not_change_a_token() -> None:
    torch.manual_seed(0)
    kernel = LinearKernel(pack(sparse_weight(40, 64, 4, 0.3), torch.randn(40)), kernels(), "gelu")
    x = torch.randn(3, 77, 64)
    alone = torch.cat([kernel(row) for row in x.view(-1, 1, 64)])
    try:
        torch.set_num_threads(2)
        assert torch.equal(kernel(x).view(-1, 40), alone)
    finally:
        torch.set_num_threads(1)


def test_inputs_of_any_layout_and_type() -> None:
    torch.manual_seed(0)
    weight = sparse_weight(24, 40, 4, 0.3)
    kernel = LinearKernel(pack(weight, None), kernels())
    x = torch.randn(5, 40, 7).transpose(1, 2)
    assert difference(kernel(x), F.linear(x, weight)) < 1e-6
    assert difference(kernel(x.double()), F.linear(x, weight)) < 1e-6
    assert torch.equal(copy.deepcopy(kernel)(x), kernel(x))
    with pytest.raises(ValueError, match="40, a multiple of 16"):
        kernel.tiles(torch.zeros(1, 40, 17))
    with pytest.raises(ValueError, match="39 features for a layer with 40 inputs"):
        kernel(torch.randn(2, 39))


def test_values_that_are_not_finite_stay_so() -> None:
    kernel = LinearKernel(pack(torch.eye(8), None), kernels(), "gelu")
    x = torch.zeros(3, 8)
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    found = kernel(x)
    assert torch.isnan(found[0, 0])
    assert found[1, 1] == float("inf")
    assert not found[2].any()
    assert torch.isnan(LinearKernel(pack(torch.eye(8), None), kernels(), "relu")(x)[0, 0])


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("target", TARGETS)
def test_gelu_is_exact_to_single_precision(target: str, activation: str) -> None:
    x = torch.cat([torch.linspace(-30, 30, 100_001), torch.tensor([-1e6, 0.0, 1e6, float("inf")])])
    kernel = LinearKernel(pack(torch.ones(1, 1), None), kernels(target), activation)
    y = kernel(x[:, None])[:, 0]
    error = (y - ACTIVATIONS[activation](x.double())).abs()[:-1]
    # Half a unit in the last place of the factor of x, which is 1 or 0 far from 0.
    assert bool((error < 3e-6 + 1.3e-7 * x[:-1].clamp_min(0)).all())
    assert float(y[-1]) == float("inf")
    assert float(kernel(torch.zeros(1, 1))) == 0
    near = torch.linspace(-1e-3, 1e-3, 101)
    relative = kernel(near[:, None])[:, 0] / ACTIVATIONS[activation](near.double())
    assert bool(((relative - 1).abs()[near != 0] < 1e-5).all())


def test_the_floating_point_mode_stays() -> None:
    """A library that flushes denormals when it is loaded would change PyTorch's results."""
    kernel = LinearKernel(pack(torch.eye(4), None), kernels())
    kernel(torch.ones(2, 4))
    tiny = torch.tensor([1e-40])
    assert float(tiny * 1) > 0
    assert float(torch.tensor([1.0]) + torch.tensor([2.0**-24])) == 1.0  # rounds to nearest
