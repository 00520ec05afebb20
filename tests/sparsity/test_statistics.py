"""Statistics: counts of zeros in weights, and the pattern that the zeros obey."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import PLAIN, examples, linear, mlp, prune_now
from torch import nn

from hydraprune.sparsity import (
    LayerSparsity,
    Magnitude,
    OneShot,
    Plans,
    attach,
    block,
    holds_pattern,
    layer_sparsity,
    model_sparsity,
    n_of_m,
    obeyed_pattern,
    zeros_of,
)


def big(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(64, 64, bias=False)


@given(st.lists(st.integers(-2, 2), max_size=20))
@examples(50)
def test_zeros_are_counted(values: list[int]) -> None:
    assert zeros_of(torch.tensor(values, dtype=torch.float32)) == values.count(0)


def test_minus_zero_is_zero() -> None:
    assert zeros_of(torch.tensor([-0.0, 0.0, 1e-30])) == 2


SINGLES = [
    *[(block(rows, cols, 0.5), f"{rows}x{cols}") for rows in (1, 2, 4, 8, 16) for cols in (1, 2, 4, 8)],
    (block(32, 1, 0.5), "32x1"),
    (block(1, 32, 0.5), "1x32"),
    (block(32, 32, 0.25), "32x32"),
    (block(1, "channel", 0.5), "1xchannel"),
    (block("channel", 1, 0.5), "channelx1"),
    (block(2, "channel", 0.5), "1xchannel"),
    (block("channel", 2, 0.5), "channelx1"),
    *[(n_of_m(keep, of, 1 - keep / of), f"{keep}:{of}") for keep, of in ((1, 2), (1, 4), (2, 4), (3, 4))],
    *[(n_of_m(keep, 8, 1 - keep / 8), f"{keep}:8") for keep in (1, 2, 4, 6)],
]


@pytest.mark.parametrize(("plans", "expected"), SINGLES, ids=[f"{p.name}" for p, _ in SINGLES])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_pattern_applied_is_found(plans: Plans, expected: str, seed: int) -> None:
    layer = big(seed)
    prune_now(layer, plans)
    (found,) = layer_sparsity(layer)
    assert found.pattern == expected
    assert found.zeros == 64 * 64 * plans.target_sparsity  # type: ignore[operator]


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        (block(1, "channel", 0.5), "1xchannel"),
        (block("channel", 1, 0.5), "channelx1"),
        (block(4, 1, 0.5), "4x1"),
        (block(1, 4, 0.5), "1x4"),
        (n_of_m(2, 4, 0.5), "2:4"),
        (block(1, 1, 0.5), "1x1"),
    ],
)
def test_the_pattern_of_a_convolution_is_found(plans: Plans, expected: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3)
    prune_now(layer, plans)
    (found,) = layer_sparsity(layer)
    assert (found.pattern, found.zeros) == (expected, 16 * 16 * 9 // 2)


def test_the_pattern_of_a_transposed_layer_is_found() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    for plans in (block(4, 1, 0.5), block(1, "channel", 0.5), n_of_m(2, 4, 0.5)):
        model = nn.Sequential(pytorch_utils.Conv1D(32, 64))
        prune_now(model, plans)
        (found,) = layer_sparsity(model)
        assert (found.name, found.shape, found.pattern) == ("0", (64, 32), plans.name)


def test_groups_half_way_through_a_ramp_are_not_named() -> None:
    layer = big()
    prune_now(layer, n_of_m(2, 4, 0.3))
    assert obeyed_pattern((layer.weight != 0).unsqueeze(1)) == "1x1"


def test_dense_and_empty() -> None:
    keep = torch.ones(4, 1, 8, dtype=torch.bool)
    assert obeyed_pattern(keep) == "dense"
    assert obeyed_pattern(~keep) == "empty"


@pytest.mark.parametrize("place", [0, 17, 4095])
def test_one_stray_zero_breaks_the_pattern(place: int) -> None:
    layer = big()
    prune_now(layer, block(4, 1, 0.5))
    alive = layer.weight.data.flatten().nonzero().squeeze(1)
    layer.weight.data.view(-1)[alive[place % len(alive)]] = 0
    assert layer_sparsity(layer)[0].pattern == "1x1"


def test_layers_are_listed_with_heads_and_without_the_rest() -> None:
    model = nn.ModuleDict(
        {"emb": nn.Embedding(3, 4), "body": nn.Linear(4, 4), "norm": nn.LayerNorm(4), "classifier": nn.Linear(4, 2)}
    )
    model["body"].weight.data = torch.ones(4, 4)
    model["body"].weight.data[2] = 0
    model["classifier"].weight.data = torch.ones(2, 4)
    body, head = layer_sparsity(model)
    assert body == LayerSparsity("body", (4, 4), 4, 16, "1xchannel")
    assert body.sparsity == 0.25
    assert head == LayerSparsity("classifier", (2, 4), 0, 8, "dense")


def test_model_sparsity_is_of_all_parameters() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "emb": nn.Embedding(3, 4)})
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    model["body"].weight.data[:2] = 0
    assert model_sparsity(model) == 8 / (16 + 4 + 12)


def test_tied_parameters_count_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    model["b"].weight = model["a"].weight
    nn.init.ones_(model["a"].weight)
    model["a"].weight.data[0] = 0
    assert model_sparsity(model) == 0.25


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("make", [lambda scope: block(4, 1, 0.5, scope), lambda scope: n_of_m(2, 4, 0.5, scope)])
def test_holds_pattern_counts_the_weights_given(make: object, scope: str) -> None:
    model = mlp()
    pruner = prune_now(model, make(scope))  # type: ignore[operator]
    goal = sum(units.target for _, units in pruner.pools)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    assert holds_pattern(pruner, weights) == (True, goal)

    # The first zero made non-zero: its unit is no longer pruned, although the mask has not changed.
    first = (weights["0.weight"] == 0).nonzero()[0]
    weights["0.weight"][tuple(first)] = 1.0
    assert holds_pattern(pruner, weights) == (False, goal - 1)


def test_holds_pattern_allows_more_zeros() -> None:
    model = mlp()
    pruner = prune_now(model, block(4, 1, 0.5))
    weights = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    assert holds_pattern(pruner, weights) == (True, 300)


def test_holds_pattern_asks_every_pool() -> None:
    # As many units as asked for in all, but not in each layer.
    model = nn.ModuleDict({"a": linear(torch.ones(4, 4)), "b": linear(torch.ones(4, 4))})
    (plan,) = block(4, 1, 0.5, "local").parts.values()
    (pruner,) = attach(model, {"p": plan.completed(Magnitude(), OneShot())}, PLAIN, 1)
    weights = {"a.weight": torch.zeros(4, 4), "b.weight": torch.ones(4, 4)}
    assert holds_pattern(pruner, weights) == (False, 4)


def test_before_pruning_the_pattern_does_not_hold() -> None:
    model = mlp()
    (plan,) = n_of_m(2, 4, 0.5).parts.values()
    (pruner,) = attach(model, {"p": plan.completed(Magnitude(), OneShot())}, PLAIN, 1)
    assert holds_pattern(pruner, dict(model.named_parameters())) == (False, 0)


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.95, 0.98])
def test_unstructured_zeros_are_not_taken_for_groups(sparsity: float) -> None:
    torch.manual_seed(0)
    assert obeyed_pattern(torch.rand(64, 1, 128) > sparsity) == "1x1"
