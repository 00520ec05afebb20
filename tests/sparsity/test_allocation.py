"""Allocation rules: uniform, Erdos-Renyi-kernel and global, within cap and floor."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sparsity_helpers import PLAIN, examples, prune_now
from torch import nn

from hydraprune.sparsity import (
    Cos,
    Cube,
    Cubic,
    Exp,
    Linear,
    Magnitude,
    OneShot,
    Pruner,
    Selection,
    SparsityError,
    Updates,
    attach,
    block,
)
from hydraprune.sparsity.allocation import LayerSize, allot, erk_goals

LAYERS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6)
ONE = Fraction(1)


def extents(sides: list[tuple[int, int]]) -> list[LayerSize]:
    return [LayerSize(rows * columns, (rows, columns)) for rows, columns in sides]


@given(LAYERS, st.integers(0, 99), st.integers(0, 60), st.integers(40, 100))
@examples(200)
def test_the_total_is_exact_and_within_bounds(sides: list[tuple[int, int]], target: int, floor: int, cap: int) -> None:
    assume(floor <= cap)
    selection = Selection(target / 100, "erk", floor / 100, cap / 100)
    layers = extents(sides)
    total = sum(layer.units for layer in layers)
    goal = total * target // 100
    floors, caps = ([layer.units * share // 100 for layer in layers] for share in (floor, cap))
    if not sum(floors) <= goal <= sum(caps):
        with pytest.raises(SparsityError, match="target_sparsity"):
            erk_goals(selection, layers, ONE)
        return
    goals = erk_goals(selection, layers, ONE)
    assert sum(goals) == goal
    assert all(low <= n <= high for low, n, high in zip(floors, goals, caps, strict=True))


@given(LAYERS, st.integers(1, 98), st.randoms())
@examples(100)
def test_it_does_not_depend_on_the_order_of_layers(sides: list[tuple[int, int]], target: int, random: object) -> None:
    layers = extents(sides)
    goals = erk_goals(Selection(target / 100, "erk", cap=1.0), layers, ONE)
    order = list(range(len(layers)))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = erk_goals(Selection(target / 100, "erk", cap=1.0), [layers[i] for i in order], ONE)
    # Equal layers may swap the one unit by which rounding parts them.
    assert all(abs(goals[i] - n) <= 1 for i, n in zip(order, other, strict=True))


@given(st.lists(st.tuples(st.integers(8, 60), st.integers(8, 60)), min_size=1), st.integers(1, 90), st.integers(1, 90))
@examples(200)
def test_every_layer_starts_at_its_share_of_the_initial_sparsity(
    sides: list[tuple[int, int]], target: int, initial: int
) -> None:
    assume(initial <= target)
    selection = Selection(target / 100, "erk", initial_sparsity=initial / 100)
    for _, own in allot(selection, extents(sides), ONE):
        assert own.initial_sparsity is not None
        assert own.initial_sparsity == pytest.approx(float(own.target_sparsity) * initial / target)


def test_densities_are_in_proportion_to_the_rule() -> None:
    sides = [(64, 64), (128, 64), (512, 256)]
    layers, selection = extents(sides), Selection(0.9, "erk", cap=1.0)
    goals = erk_goals(selection, layers, ONE)
    kept = [1 - goal / layer.units for goal, layer in zip(goals, layers, strict=True)]
    rule = [(rows + columns) / (rows * columns) for rows, columns in sides]
    scale = sum(n.units for n in layers) * 0.1 / sum(r * n.units for r, n in zip(rule, layers, strict=True))
    assert kept == pytest.approx([r * scale for r in rule], abs=1e-3)
    assert kept[0] > kept[1] > kept[2]


def test_erk_leaves_a_layer_dense_whose_density_exceeds_one() -> None:
    # RigL's own treatment: such a layer stays dense, and the others share what remains.
    layers = extents([(2, 2), (100, 100)])
    assert erk_goals(Selection(0.5, "erk", cap=1.0), layers, ONE) == [0, 5002]


def test_kernel_sizes_count_in_erk() -> None:
    layers = [LayerSize(16 * 16 * 9, (16, 16, 9)), LayerSize(16 * 16 * 9, (48, 48))]
    first, second = erk_goals(Selection(0.5, "erk", cap=1.0), layers, ONE)
    densities = [1 - first / layers[0].units, 1 - second / layers[1].units]
    assert densities[0] / densities[1] == pytest.approx((41 / (16 * 16 * 9)) / (96 / 48**2), rel=1e-2)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 64, bias=False), nn.Linear(64, 64, bias=False))


@pytest.mark.parametrize(("scope", "pools"), [("global", 1), ("local", 3), ("erk", 3)])
def test_every_rule_ends_exact(scope: str, pools: int) -> None:
    plans = block(4, 1, 0.7, scope, cap=0.95)  # type: ignore[arg-type]
    pruner: Pruner
    (pruner,) = attach(model(), {"p": plans.parts["4x1"].completed(Magnitude(), OneShot())}, PLAIN, 1)
    pruner.project(0)
    assert len(pruner.pools) == pools
    found = [units.pruned for _, units in pruner.pools]
    assert found == [units.target for _, units in pruner.pools]
    total = sum(weight.parameter.numel() // 4 for weight in pruner.weights)
    if scope == "local":
        assert found == [int(weight.parameter.numel() // 4 * 0.7) for weight in pruner.weights]
    else:
        assert sum(found) == math.floor(total * Fraction("0.7"))
    if scope == "erk":
        shares = [count / (w.parameter.numel() // 4) for count, w in zip(found, pruner.weights, strict=True)]
        assert shares == sorted(shares)


def test_scopes_other_than_erk_do_not_change_the_target() -> None:
    layers = extents([(4, 4), (8, 8)])
    for scope, indices in (("global", [[0, 1]]), ("local", [[0], [1]])):
        selection = Selection(0.5, scope)  # type: ignore[arg-type]
        assert allot(selection, layers, ONE) == [(pool, selection) for pool in indices]
    with pytest.raises(SparsityError, match="scope=ERK: must be global, local, erk or weights"):
        Selection(0.5, "ERK")  # type: ignore[arg-type]


@examples(150)
@given(
    sides=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5),
    target=st.integers(0, 99),
    initial=st.none() | st.integers(0, 99),
)
def test_erk_may_prune_a_whole_layer_where_the_cap_allows_it(
    sides: list[tuple[int, int]], target: int, initial: int | None
) -> None:
    first = None if initial is None else min(initial, target) / 100
    selection = Selection(target / 100, "erk", cap=1.0, initial_sparsity=first)
    layers = extents(sides)
    pools = allot(selection, layers, ONE)
    goals = [own.budget([layers[i].units for i in indices], ONE).goal for indices, own in pools]
    assert sum(goals) == int(sum(layer.units for layer in layers) * target / 100 + 1e-9)
    for (_, own), ramp in zip(pools, [Exp(), Linear(), Cos(), Cube(), Cubic()] * 5, strict=False):
        start = own.initial_sparsity or 0.0
        asked = [Updates(ramp, 0, 1, 3).sparsity(update, float(own.target_sparsity), start) for update in range(4)]
        assert asked[-1] == float(own.target_sparsity)
        assert all(0 <= ratio <= float(own.target_sparsity) for ratio in asked)


def test_a_layer_that_erk_prunes_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4, bias=False), nn.Linear(4, 4, bias=False))
    whole = 0
    for percent in range(80, 100):
        pruner = prune_now(model, block(1, 1, percent / 100, "erk", cap=1.0, initial_sparsity=0))
        assert sum(units.pruned for _, units in pruner.pools) == 272 * percent // 100
        whole += len(pruner.emptied)
    assert whole > 0
