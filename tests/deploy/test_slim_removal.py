"""What can be removed from a layer: laws on random weights with random zeros."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hydraprune.deploy.slim_removal import Removal, removable_channels, removable_heads

ACTIVATIONS = (nn.functional.gelu, nn.functional.relu, torch.tanh)


@st.composite
def zeroed(draw: st.DrawFn, most: int) -> tuple[int, list[bool], list[bool], int]:
    """(units, which are zero before, which behind, a seed)."""
    units = draw(st.integers(1, most))
    flags = st.lists(st.booleans(), min_size=units, max_size=units)
    return units, draw(flags), draw(flags), draw(st.integers(0, 2**16))


def expected(before: list[bool], behind: list[bool]) -> tuple[int, ...]:
    kept = tuple(unit for unit, zeros in enumerate(zip(before, behind, strict=True)) if not any(zeros))
    return kept or (0,)


@given(zeroed(9), st.sampled_from(ACTIVATIONS))
def test_the_channels_that_stay_and_the_bias_give_the_outputs(
    case: tuple[int, list[bool], list[bool], int], activation: nn.Module
) -> None:
    units, rows, columns, seed = case
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(units, 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(units, generator=generator, dtype=torch.float64)
    second = torch.randn(4, units, generator=generator, dtype=torch.float64)
    first[torch.tensor(rows)] = 0
    second[:, torch.tensor(columns)] = -0.0
    removal = removable_channels(first, bias, activation, second)
    assert removal.kept == expected(rows, columns)
    inputs = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    kept = list(removal.kept)
    whole = activation(inputs @ first.T + bias) @ second.T
    slim = activation(inputs @ first[kept].T + bias[kept]) @ second[:, kept].T + removal.bias
    torch.testing.assert_close(slim, whole)


def attended(inputs: Tensor, value: Tensor, bias: Tensor, weights: Tensor) -> Tensor:
    """[tokens, heads * size] of an attention with these weights, [heads, tokens, tokens]."""
    values = (inputs @ value.T + bias).reshape(len(inputs), len(weights), -1)
    return torch.einsum("hqk,khs->qhs", weights, values).flatten(1)


@given(zeroed(5), st.integers(1, 3))
def test_the_heads_that_stay_and_the_bias_give_the_outputs(
    case: tuple[int, list[bool], list[bool], int], size: int
) -> None:
    heads, before, behind, seed = case
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(heads, size, 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(heads, size, generator=generator, dtype=torch.float64)
    output = torch.randn(4, heads, size, generator=generator, dtype=torch.float64)
    value[torch.tensor(before)] = 0
    output[:, torch.tensor(behind)] = 0
    removal = removable_heads(value.flatten(0, 1), bias.flatten(), output.flatten(1), heads)
    assert removal.kept == expected(before, behind)
    inputs = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(heads, 6, 6, generator=generator, dtype=torch.float64).softmax(-1)
    kept = list(removal.kept)
    whole = attended(inputs, value.flatten(0, 1), bias.flatten(), weights) @ output.flatten(1).T
    slim = attended(inputs, value[kept].flatten(0, 1), bias[kept].flatten(), weights[kept])
    torch.testing.assert_close(slim @ output[:, kept].flatten(1).T + removal.bias, whole)


def kept_of(first: Tensor, bias: Tensor) -> Removal:
    return removable_channels(first, bias, torch.exp, torch.ones(2, len(first)))


def test_a_channel_whose_constant_is_not_finite_stays() -> None:
    assert kept_of(torch.zeros(3, 2), torch.tensor([0.0, 1000.0, 0.0])).kept == (1,)


def test_nan_is_no_zero() -> None:
    assert kept_of(torch.tensor([[0.0, torch.nan], [0.0, 0.0]]), torch.zeros(2)).kept == (0,)


def test_nothing_is_added_where_nothing_goes() -> None:
    removal = kept_of(torch.ones(3, 2), torch.ones(3))
    assert removal.kept == (0, 1, 2)
    assert not removal.bias.any()
