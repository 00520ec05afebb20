"""Caps are applied only where they bind: the same choice as a greedy walk from the cheapest unit on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sparsity_helpers import examples
from torch import Tensor

from hydraprune.sparsity import Budget, choose


def walk(costs: Sequence[Tensor], caps: Sequence[int], count: int) -> list[list[bool]]:
    """One unit after the other, cheapest and then earliest first, passing over layers at their caps."""
    chosen = [[False] * layer.numel() for layer in costs]
    units = sorted((cost, i, j) for i, layer in enumerate(costs) for j, cost in enumerate(layer.tolist()))
    for _, i, j in units:
        if sum(map(sum, chosen)) < count and sum(chosen[i]) < caps[i]:
            chosen[i][j] = True
    return chosen


def free(costs: Sequence[Tensor], count: int) -> list[int]:
    """How many units of each layer would go if there were no caps."""
    return [sum(layer) for layer in walk(costs, [layer.numel() for layer in costs], count)]


def chosen(costs: Sequence[Tensor], caps: Sequence[int], count: int) -> list[list[bool]]:
    budget = Budget(count, count, (0,) * len(costs), tuple(caps))
    return [layer.tolist() for layer in choose(costs, budget)]


def within(counts: Sequence[int], caps: Sequence[int]) -> bool:
    return all(n <= cap for n, cap in zip(counts, caps, strict=True))


COSTS = st.one_of(st.integers(0, 3), st.floats(0, 1e6, width=32), st.floats(0, 2.0**-120, width=32))


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[Tensor], list[int], int]:
    """Up to four layers of up to 40 units, caps, and how many are to go."""
    sizes = range(draw(st.integers(1, 4)))
    costs = [torch.tensor(draw(st.lists(COSTS, min_size=1, max_size=40)), dtype=torch.float32) for _ in sizes]
    caps = [draw(st.integers(0, layer.numel())) for layer in costs]
    return costs, caps, draw(st.integers(0, sum(caps)))


@given(layers())
@examples(200)
def test_the_choice_equals_a_greedy_walk(case: tuple[list[Tensor], list[int], int]) -> None:
    assert chosen(*case) == walk(*case)


@given(layers())
@examples(100)
def test_caps_that_do_not_bind_change_nothing(case: tuple[list[Tensor], list[int], int]) -> None:
    costs, caps, count = case
    most = [max(cap, n) for cap, n in zip(caps, free(costs, count), strict=True)]
    assert within(free(costs, count), most)
    assert chosen(costs, most, count) == chosen(costs, [layer.numel() for layer in costs], count)


@given(layers())
@examples(100)
def test_a_layer_clipped_to_its_cap_is_filled(case: tuple[list[Tensor], list[int], int]) -> None:
    costs, caps, count = case
    wanted = free(costs, count)
    assume(not within(wanted, caps))
    found = [sum(layer) for layer in chosen(*case)]
    assert all(n == cap for n, cap, free_ in zip(found, caps, wanted, strict=True) if free_ > cap)
    assert sum(found) == count


@given(layers())
@examples(50)
def test_empty_units_are_pruned_first(case: tuple[list[Tensor], list[int], int]) -> None:
    costs, caps, count = case
    for layer in costs:
        layer[: layer.numel() // 3] = -torch.inf
    assert chosen(costs, caps, count) == walk(costs, caps, count)


CHEAP, DEAR = torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([9.0, 7.0, 8.0, 6.0])


@pytest.mark.parametrize(
    ("caps", "count", "expected"),
    [
        # The three cheapest lie in the first layer, which may lose four, three and two.
        ((4, 4), 3, [[False, True, True, True], [False, False, False, False]]),
        ((3, 4), 3, [[False, True, True, True], [False, False, False, False]]),
        ((2, 4), 3, [[False, True, True, False], [False, False, False, True]]),
        # Nothing may go there.
        ((0, 4), 3, [[False, False, False, False], [False, True, True, True]]),
        # All that may go, goes.
        ((1, 2), 3, [[False, True, False, False], [False, True, False, True]]),
    ],
)
def test_caps_by_hand(caps: tuple[int, int], count: int, expected: list[list[bool]]) -> None:
    assert chosen([CHEAP, DEAR], caps, count) == expected
    assert walk([CHEAP, DEAR], caps, count) == expected


def test_ties_across_layers_go_to_the_earlier_one() -> None:
    ones = torch.ones(4)
    assert chosen([ones, ones], (4, 4), 3) == [[True, True, True, False], [False] * 4]
    assert chosen([ones, ones], (2, 4), 3) == [[True, True, False, False], [True, False, False, False]]
