"""Fast dropout: rate, expectation, independence, gradients, and the same bits with and without compiled code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hydraprune.kernels.dropout import FastDropout, fast_dropout, use_compiled

# Not all of them multiples of 2^-16.
RATES = [0.001, 0.1, 0.25, 0.5, 0.9, 0.999]
COUNT = 200_000


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "native"
    if not use_compiled(folder):
        pytest.skip("no C compiler here")
    use_compiled(None)
    return folder


@contextmanager
def compiled(folder: Path | None) -> Iterator[None]:
    assert use_compiled(folder) == (folder is not None)
    try:
        yield
    finally:
        use_compiled(None)


def share(p: float) -> float:
    """The probability in use: rounded to a multiple of 2^-16."""
    return round(p * 65_536) / 65_536


def dropped(values: Tensor, p: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return fast_dropout(values, p)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bits; -0.0 differs from 0.0, but all NaN bit patterns are equal."""
    kind = torch.int32 if one.dtype == torch.float32 else torch.int16
    numbers = ~one.isnan()
    return torch.equal(numbers, ~other.isnan()) and torch.equal(one[numbers].view(kind), other[numbers].view(kind))


# How often and by how much ------------------------------------------------------------------------


@pytest.mark.parametrize("p", RATES)
def test_the_dropped_share_is_p(p: float) -> None:
    gone = float((dropped(torch.ones(COUNT), p) == 0).float().mean())
    assert abs(gone - p) < 5 * (p * (1 - p) / COUNT) ** 0.5 + 2**-17


@pytest.mark.parametrize("p", RATES)
def test_the_expectation_is_kept(p: float) -> None:
    mean = float(dropped(torch.ones(COUNT), p).double().mean())
    assert abs(mean - 1) < 5 * (p / (1 - p) / COUNT) ** 0.5
    kept = dropped(torch.ones(COUNT), p)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / (1 - share(p))).item()}


def correlation(one: Tensor, other: Tensor) -> float:
    """Correlation, in standard deviations of that of uncorrelated values."""
    return float(torch.corrcoef(torch.stack([one, other]).double())[0, 1]) * len(one) ** 0.5


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8, 64])
def test_neighbours_are_dropped_independently(distance: int, p: float) -> None:
    gone = (dropped(torch.ones(COUNT), p) == 0).float()
    assert abs(correlation(gone[distance:], gone[:-distance])) < 5


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_four_values_of_one_random_number_are_independent(p: float) -> None:
    gone = (dropped(torch.ones(COUNT), p) == 0).float().view(-1, 4)
    for index in range(4):
        assert abs(float(gone[:, index].mean()) - p) < 5 * (p * (1 - p) / len(gone)) ** 0.5
        for other in range(index):
            assert abs(correlation(gone[:, index], gone[:, other])) < 5


def test_two_calls_drop_independently() -> None:
    torch.manual_seed(0)
    one, other = ((fast_dropout(torch.ones(COUNT), 0.3) == 0).float() for _ in range(2))
    assert abs(correlation(one, other)) < 5


# What it does to values and gradients -------------------------------------------------------------


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.floats(0.01, 0.99), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_the_gradient_is_dropped_where_the_values_are(shape: list[int], p: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator).requires_grad_()
    gradient = torch.randn(shape, generator=generator)
    result = dropped(values, p, seed)
    result.backward(gradient)
    mask = (result != 0).float()
    assert values.grad is not None
    for found, source in ((result, values), (values.grad, gradient)):
        expected = source.detach().double() * mask / (1 - share(p))
        assert torch.allclose(found.detach().double(), expected, rtol=1e-6, atol=0)


def test_gradients_match_finite_differences() -> None:
    values = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dropped(x, 0.3, seed=4), values)


@pytest.mark.parametrize("p", [0.0, 1e-6])
def test_a_rate_of_zero_returns_the_input(p: float) -> None:
    values, state = torch.randn(9), torch.get_rng_state()
    assert fast_dropout(values, p) is values
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_returns_the_input() -> None:
    values = torch.randn(9)
    assert fast_dropout(values, 0.5, training=False) is values
    assert torch.equal(FastDropout(0.5).eval()(values), values)
    assert not torch.equal(FastDropout(0.5)(torch.ones(64)), torch.ones(64))


def test_a_rate_of_one_gives_zeros() -> None:
    values = torch.randn(9).requires_grad_()
    result = fast_dropout(values, 1.0)
    result.sum().backward()
    assert torch.equal(result, torch.zeros(9))
    assert torch.equal(values.grad, torch.zeros(9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_input_is_unchanged_and_the_dtype_kept(dtype: torch.dtype) -> None:
    values = torch.randn(6, 7).to(dtype)
    before = values.clone()
    result = dropped(values, 0.5)
    assert torch.equal(values, before)
    assert (result.dtype, result.shape) == (dtype, values.shape)


def test_an_empty_tensor_is_allowed() -> None:
    assert dropped(torch.empty(0, 4), 0.5).shape == (0, 4)


def test_the_result_depends_on_the_seed_alone() -> None:
    values = torch.randn(50)
    assert torch.equal(dropped(values, 0.5, seed=1), dropped(values, 0.5, seed=1))
    assert not torch.equal(dropped(values, 0.5, seed=1), dropped(values, 0.5, seed=2))


def test_the_memory_layout_does_not_matter() -> None:
    values = torch.randn(6, 8)
    for lying in (values.t().contiguous().t(), torch.stack([values, values], -1)[..., 0]):
        assert not lying.is_contiguous()
        assert torch.equal(dropped(lying, 0.5), dropped(values, 0.5))
    leaf = torch.randn(6, 8, requires_grad=True)
    torch.manual_seed(0)
    fast_dropout(leaf.t(), 0.5).backward(torch.ones(6, 8).t().contiguous())
    assert leaf.grad is not None
    assert torch.equal(leaf.grad.t() != 0, dropped(torch.ones(8, 6), 0.5) != 0)


# Two paths ----------------------------------------------------------------------------------------

ODD = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 65_504.0, 1 / 3]


def awkward(count: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, generator=generator) * 10 ** torch.randint(-6, 7, (count,), generator=generator)
    some = min(count // 2, len(ODD))
    values[:some] = torch.tensor(ODD)[:some]
    return values.to(dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 1000, 4099])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_code_and_pytorch_give_the_same_bits(
    dtype: torch.dtype, count: int, threads: int, native: Path
) -> None:
    values, gradient = awkward(count, dtype), awkward(count, dtype).flip(0)
    for p in (0.1, 1 / 3, 0.5, 0.97):
        found = []
        for folder in (None, native):
            torch.set_num_threads(threads if folder else 1)
            with compiled(folder):
                leaf = values.clone().requires_grad_()
                result = dropped(leaf, p, seed=7)
                state = torch.get_rng_state()
                result.backward(gradient)
                found.append((result.detach(), leaf.grad, state))
        torch.set_num_threads(1)
        (plain, plain_gradient, plain_state), (quick, quick_gradient, quick_state) = found
        assert plain_gradient is not None
        assert quick_gradient is not None
        assert same_bits(plain, quick)
        assert same_bits(plain_gradient, quick_gradient)
        assert torch.equal(plain_state, quick_state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_use_pytorch(dtype: torch.dtype, native: Path) -> None:
    values = awkward(100, torch.float32).nan_to_num(1.0).clamp(-1e4, 1e4).to(dtype)
    with compiled(native):
        quick = dropped(values, 0.3)
    assert torch.equal(quick, dropped(values, 0.3))


def test_compiled_code_reads_non_contiguous_tensors(native: Path) -> None:
    values = torch.randn(6, 8)
    with compiled(native):
        assert torch.equal(dropped(values.t(), 0.5), dropped(values.t().contiguous(), 0.5))
        leaf = values.clone().requires_grad_()
        dropped(leaf, 0.5).backward(torch.ones(8, 6).t())
    assert leaf.grad is not None
    assert torch.equal(leaf.grad != 0, dropped(torch.ones(6, 8), 0.5) != 0)


def test_one_random_number_is_drawn_per_call() -> None:
    states = []
    for count in (5, 90_000):
        dropped(torch.ones(count), 0.5)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    torch.manual_seed(0)
    torch.empty((), dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(states[0], torch.get_rng_state())
