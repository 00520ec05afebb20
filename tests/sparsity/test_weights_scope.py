"""`scope=weights`: the target counts weights where units differ in size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity_helpers import plan_of
from torch import nn

from hydraprune.sparsity import (
    Exp,
    Family,
    Magnitude,
    OneShot,
    Plans,
    Pruner,
    SnipMomentum,
    SparsityError,
    SrSte,
    Wanda,
    attach,
    block,
    holds_pattern,
)
from hydraprune.sparsity.selection import Budget, choose, choose_sized

# (output, input) sizes of layers whose output channels hold 6 to 60 weights.
SIZES = [(16, 6), (8, 60), (20, 12), (30, 24)]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(inputs, outputs) for outputs, inputs in SIZES])


def channels(target: float, **more: object) -> Plans:
    return block(rows=1, cols="channel", target_sparsity=target, **{"cap": 1.0, **more})  # type: ignore[arg-type]


def pruned(net: nn.Module, plans: Plans) -> Pruner:
    (pruner,) = attach(net, {plans.name: plan_of(plans, Magnitude(), OneShot())}, Family("mine"), steps=0)
    assert pruner.project(0)
    return pruner


def zeros(net: nn.Module) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in net)  # type: ignore[arg-type, operator, union-attr]


@given(st.floats(0.02, 0.95))
@settings(max_examples=30, deadline=None)
def test_the_target_is_met_up_to_one_channel(target: float) -> None:
    net, total = model(), sum(a * b for a, b in SIZES)
    pruner = pruned(net, channels(target, scope="weights"))
    assert total * target - 60 < zeros(net) <= total * target
    assert pruner.at_target
    holds, found = holds_pattern(pruner, dict(net.named_parameters()))
    assert holds
    assert found * 6 == zeros(net), "units count by what all sizes have in common, 6"


@given(st.floats(0.3, 0.85), st.floats(0.0, 0.3), st.sampled_from([0.91, 0.95, 0.98]))
@settings(max_examples=40, deadline=None)
def test_floors_and_caps_are_whole_units(target: float, floor: float, cap: float) -> None:
    net, total = model(), sum(a * b for a, b in SIZES)
    pruner = pruned(net, channels(target, scope="weights", floor=floor, cap=cap))
    assert total * target - 2 * 60 < zeros(net) <= total * target
    assert pruner.at_target
    assert holds_pattern(pruner, dict(net.named_parameters()))[0]
    for layer, (outputs, _) in zip(net, SIZES, strict=True):  # type: ignore[arg-type]
        gone = int((layer.weight == 0).all(1).sum())  # type: ignore[operator, union-attr, call-overload]
        assert int(outputs * floor) - 1 <= gone <= int(outputs * cap)


def test_many_layers_at_their_cap() -> None:
    net = nn.ModuleList([*(nn.Linear(64, 256) for _ in range(4)), *(nn.Linear(256, 64) for _ in range(4))])
    pruner = pruned(net, block(rows=1, cols="channel", target_sparsity=0.9, scope="weights"))
    assert pruner.at_target


def test_units_and_weights_differ() -> None:
    """By units, channels of the narrow layers go first, which hold few weights."""
    total = sum(a * b for a, b in SIZES)
    shares = {}
    for scope in ("global", "weights"):
        net = model()
        pruned(net, channels(0.5, scope=scope))
        shares[scope] = zeros(net) / total
    assert abs(shares["weights"] - 0.5) < 0.02
    assert abs(shares["global"] - 0.5) > 0.05


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=8), min_size=1, max_size=4),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_the_cheapest_units_that_fit_are_chosen(rows: list[list[int]], sizes: list[int], share: float) -> None:
    costs = [torch.tensor(row, dtype=torch.float32) for row in rows]
    sizes = sizes[: len(rows)]
    units = [len(row) * size for row, size in zip(rows, sizes, strict=True)]
    count = int(sum(units) * share)
    chosen = choose_sized(costs, sizes, Budget(count, count, (0,) * len(rows), tuple(units)))
    spent = sum(int(layer.sum()) * size for layer, size in zip(chosen, sizes, strict=True))
    assert count - max(sizes) < spent <= count
    kept = [float(c) for cost, layer in zip(costs, chosen, strict=True) for c in cost[~layer]]
    gone = [float(c) for cost, layer in zip(costs, chosen, strict=True) for c in cost[layer]]
    assert not kept or not gone or max(gone) <= min(kept)
    fewer = Budget(count // 5, count // 5, (0,) * len(rows), tuple(map(len, rows)))
    alike = choose_sized(costs, [1] * len(rows), fewer)
    assert all(torch.equal(a, b) for a, b in zip(alike, choose(costs, fewer), strict=True))


def test_units_of_one_size_are_those_of_the_global_scope() -> None:
    nets = [model(), model()]
    for net, scope in zip(nets, ("global", "weights"), strict=True):
        pruned(net, block(rows=2, cols=2, target_sparsity=0.7, scope=scope))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(*(net.parameters() for net in nets), strict=True))


def test_a_schedule_and_a_resumed_training() -> None:
    ends = []
    for cut in (False, True):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 2))
        plan = channels(0.6, scope="weights").parts["1xchannel"].completed(SnipMomentum(), Exp(1, 2, 2))
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        (pruner,) = attach(net, {"1xchannel": plan}, Family("mine"), steps=14)
        for step in range(14):
            if cut and step == 6:
                state = pruner.state_dict()
                (pruner,) = attach(net, {"1xchannel": plan}, Family("mine"), steps=14)
                pruner.load_state_dict(state)
            net(torch.randn(16, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            pruner.observe(step)
            optimizer.step()
            pruner.project(step + 1)
            optimizer.zero_grad()
        assert pruner.at_target
        ends.append([weight.detach().clone() for weight in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("method", [Wanda(), SrSte()])
def test_methods_that_count_units_refuse_it(method: object) -> None:
    plan = plan_of(channels(0.5, scope="weights"), method, OneShot() if isinstance(method, Wanda) else Exp(1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(SparsityError, match="counts units; use scope=global or scope=local"):
        attach(model(), {"p": plan}, Family("mine"), steps=8, calibration=lambda n: iter(()))
