"""States of other plans and other models are refused, with what differs."""

from __future__ import annotations

from typing import Any

import pytest
from sparsity_helpers import mlp, pruner_of, through_a_file, train
from torch import nn

from hydraprune.sparsity import (
    Block,
    Exp,
    GroupLasso,
    Linear,
    Magnitude,
    Method,
    NofM,
    Plans,
    Progressive,
    Pruner,
    Schedule,
    SnipMomentum,
    SparsityError,
    SrSte,
    custom,
    zeros_of,
)

STEPS = 14


def plans_of(**changes: Any) -> tuple[Plans, Method, Schedule, Any, Any]:
    given: dict[str, Any] = {
        "pattern": Block(4, 1),
        "target": 0.5,
        "scope": "global",
        "floor": 0.0,
        "cap": 0.98,
        "initial": None,
        "method": Magnitude(),
        "schedule": Exp(frequency=2),
        "transition": None,
        "regularizer": None,
    }
    given |= changes
    plans = custom(
        given["pattern"], given["target"], given["scope"], given["floor"], given["cap"],
        initial_sparsity=given["initial"],
    )  # fmt: skip
    return plans, given["method"], given["schedule"], given["transition"], given["regularizer"]


OTHERS: list[dict[str, Any]] = [
    {"pattern": Block(1, 1)},
    {"pattern": Block(2, 1)},
    {"pattern": Block(1, 4)},
    {"pattern": Block(4, 1, "sum")},
    {"pattern": Block(1, "channel")},
    {"pattern": NofM(2, 4), "target": 0.25},
    {"target": 0.6},
    {"target": 0.4},
    {"scope": "local"},
    {"scope": "erk"},
    {"floor": 0.1},
    {"cap": 0.9},
    {"initial": 0.0},
    {"method": SnipMomentum(), "schedule": Exp(warmup=1, frequency=2)},
    {"method": SrSte()},
    {"schedule": Exp(frequency=3)},
    {"schedule": Exp(cooldown=1, frequency=2)},
    {"schedule": Linear(frequency=2)},
    {"transition": Progressive(2), "schedule": Exp(warmup=2, frequency=2)},
    {"regularizer": GroupLasso()},
]


def made(model: nn.Module, changes: dict[str, Any], steps: int = STEPS) -> Pruner:
    plans, method, schedule, transition, regularizer = plans_of(**changes)
    return pruner_of(model, plans, method, schedule, steps, transition, regularizer)


@pytest.mark.parametrize("at", [0, 5, STEPS])
@pytest.mark.parametrize("changes", OTHERS, ids=str)
def test_a_state_of_another_plan_is_refused(changes: dict[str, Any], at: int) -> None:
    for one, other in (({}, changes), (changes, {})):
        model = mlp()
        pruner = made(model, one)
        # A regularizer needs the optimizer, which this loop does not pass.
        train(model, [pruner], range(0 if "regularizer" in one else at))
        foreign = made(mlp(), other)
        with pytest.raises(SparsityError, match=r"state of pruner .* does not fit: .*load the state of the same plan"):
            foreign.load_state_dict(through_a_file(pruner.state_dict()))
        assert foreign.zeros == 0


def test_a_state_of_another_length_or_other_layers_is_refused() -> None:
    state = made(mlp(), {}).state_dict()
    with pytest.raises(SparsityError, match="its updates: "):
        made(mlp(), {}, STEPS + 2).load_state_dict(state)
    other = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 40))
    with pytest.raises(SparsityError, match="its layers: "):
        made(other, {}).load_state_dict(state)


@pytest.mark.parametrize("changes", OTHERS[:6], ids=str)
def test_a_state_of_an_earlier_version_is_known_by_its_masks(changes: dict[str, Any]) -> None:
    # Such a state does not say of which plan it is.
    model, own = mlp(), mlp()
    one, same = made(model, changes), made(own, {})
    train(model, [one], range(STEPS))
    state = one.state_dict()
    del state["plan"], state["fixed"]
    if changes["pattern"] != Block(4, 1, "sum"):
        with pytest.raises(SparsityError, match=r"does not fit: .* pruned units in it|pools"):
            same.load_state_dict(state)
    again = made(mlp(), changes)
    again.load_state_dict(state)
    assert again.zeros == one.zeros == sum(zeros_of(model[i].weight) for i in (0, 2))
