"""Loops of one's own that go wrong: what is called in another order, too short, or with another optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparsity_helpers import adamw, mlp, pruner_of, train
from torch import nn

from hydraprune.sparsity import (
    Block,
    Exp,
    Hold,
    LockZeros,
    Magnitude,
    Method,
    NofM,
    OneShot,
    Rigl,
    SnipMomentum,
    SparsityError,
    SrSte,
    custom,
)

STEPS = 12


@pytest.mark.parametrize("method", [Magnitude(), SnipMomentum(), LockZeros()], ids=lambda m: m.name)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_projecting_before_the_optimizer_steps_is_refused(method: Method, decay: float) -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[:4] = 0
    plans = custom(Block(1, 1), 0.0 if isinstance(method, LockZeros) else 0.5)
    schedule: Any = OneShot() if isinstance(method, LockZeros) else Exp(warmup=2, frequency=2)
    pruner = pruner_of(model, plans, method, schedule, STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=decay)
    pruner.project(0)

    def loop() -> None:
        for step in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(8, 20)).square().sum().backward()
            pruner.observe(step)
            pruner.project(step + 1)
            optimizer.step()

    match = r"masked weights of 0\.weight are not zero.*call project\(step \+ 1\) after optimizer\.step\(\)"
    with pytest.raises(SparsityError, match=match):
        loop()


@pytest.mark.parametrize("method", [Magnitude(), SnipMomentum(), SrSte(), Rigl()], ids=lambda m: m.name)
@pytest.mark.parametrize("ends", [3, 7, STEPS])
def test_a_training_that_ends_early_is_not_at_its_target(method: Method, ends: int) -> None:
    model = mlp()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), method, Exp(warmup=2, cooldown=2, frequency=2), STEPS)
    train(model, [pruner], range(ends))
    assert pruner.at_target == (ends == STEPS)


@pytest.mark.parametrize("given", ["none", "other", "own"])
def test_rigl_says_when_it_cannot_reset_moments(given: str, caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    optimizer, other = adamw(model), adamw(nn.Linear(2, 2))
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), Rigl(), Hold(warmup=2, frequency=2), STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().sum().backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1, {"none": None, "other": other, "own": optimizer}[given])
    said = [record.message for record in caplog.records]
    assert len(said) == (given != "own")
    assert all("moments of weights that come back are not reset" in line for line in said)


def test_a_loop_in_order_is_checked_once() -> None:
    model = mlp()
    pruner = pruner_of(model, custom(NofM(2, 4), 0.5), SnipMomentum(), Exp(warmup=2, frequency=2), STEPS)
    train(model, [pruner], range(STEPS))
    assert pruner.at_target
