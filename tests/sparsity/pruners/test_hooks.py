"""Hooks on an optimizer: the same masks and weights as by calls in the loop, whatever the loop does."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from hydraprune.sparsity import (
    Exp,
    Family,
    Magnitude,
    OneShot,
    Plan,
    Pruner,
    Rigl,
    SnipMomentum,
    SparsityError,
    attach,
    block,
    hooked,
)

STEPS = 20
MAKERS: dict[str, Callable[[], Any]] = {"snip_momentum": SnipMomentum, "rigl": Rigl, "magnitude": Magnitude}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))


def plan(criterion: str = "snip_momentum") -> Plan:
    schedule = Exp(warmup=2, cooldown=4, frequency=2)
    return block(4, 1, target_sparsity=0.75).parts["4x1"].completed(MAKERS[criterion](), schedule)


def attached(model: nn.Module, criterion: str = "snip_momentum") -> tuple[Pruner, ...]:
    return attach(model, {"4x1": plan(criterion)}, Family("mine", outside=["4"]), STEPS)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(STEPS, 8, 16, generator=generator)
    return [(x, (x[:, 0] > 0).long()) for x in inputs]


def train(
    model: nn.Module, optimizer: Optimizer, steps: range = range(STEPS), pruners: tuple[Pruner, ...] = ()
) -> None:
    """A loop as anyone writes it; with `pruners`, also as `Pruner` describes."""
    for step in steps:
        inputs, labels = batches()[step]
        nn.functional.cross_entropy(model(inputs), labels).backward()
        for pruner in pruners:
            pruner.observe(step)
        optimizer.step()
        for pruner in pruners:
            pruner.project(step + 1, optimizer)
        optimizer.zero_grad()


@pytest.mark.parametrize("criterion", MAKERS)
def test_hooks_do_what_calls_in_the_loop_do(criterion: str) -> None:
    by_calls, by_hooks = network(), network()
    pruners = attached(by_calls, criterion)
    optimizer = AdamW(by_calls.parameters(), lr=1e-2)
    pruners[0].project(0, optimizer)
    train(by_calls, optimizer, pruners=pruners)
    other = AdamW(by_hooks.parameters(), lr=1e-2)
    with hooked(attached(by_hooks, criterion), other) as hooks:
        train(by_hooks, other)
    assert hooks.done
    assert hooks.step == STEPS
    for one, two in zip(by_calls.parameters(), by_hooks.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_is_pruned_at_the_start_is_pruned_at_once() -> None:
    model = network()
    once = block(4, 1, target_sparsity=0.5).parts["4x1"].completed(Magnitude(), OneShot())
    hooks = hooked(attach(model, {"4x1": once}, Family("mine", outside=["4"]), STEPS), SGD(model.parameters(), lr=0.1))
    assert hooks.done
    assert hooks.pruners[0].zeros * 2 == hooks.pruners[0].total


def test_accumulated_batches_are_one_step() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    hooks = hooked(attached(model), optimizer)
    for number, (inputs, labels) in enumerate(batches()):
        nn.functional.cross_entropy(model(inputs), labels).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert hooks.step == STEPS // 2
    assert not hooks.done


def test_a_resumed_loop_goes_on_bit_for_bit() -> None:
    whole, cut = network(), network()
    optimizer = AdamW(whole.parameters(), lr=1e-2)
    hooked(attached(whole), optimizer)
    train(whole, optimizer)

    first = AdamW(cut.parameters(), lr=1e-2)
    hooks = hooked(attached(cut), first)
    train(cut, first, range(9))
    state = copy.deepcopy((cut.state_dict(), first.state_dict(), hooks.state_dict()))
    again = network()
    again.load_state_dict(state[0])
    second = AdamW(again.parameters(), lr=1e-2)
    second.load_state_dict(state[1])
    resumed = hooked(attached(again), second, state[2])
    assert resumed.step == 9
    train(again, second, range(9, STEPS))
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_accelerates_optimizer_is_seen_through() -> None:
    model = network()
    accelerator = Accelerator(cpu=True)
    optimizer = SGD(model.parameters(), lr=0.1)
    prepared = accelerator.prepare_optimizer(optimizer)
    hooks = hooked(attached(model), prepared)
    train(model, prepared)
    assert hooks.step == STEPS
    assert hooks.done


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler(fused: bool) -> None:
    model = network()
    optimizer = AdamW(model.parameters(), lr=1e-2, fused=fused)
    hooks = hooked(attached(model), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)

    def step(unscale: bool) -> None:
        inputs, labels = batches()[hooks.step]
        scaler.scale(nn.functional.cross_entropy(model(inputs), labels)).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    step(unscale=True)
    assert hooks.step == 1
    if fused:
        with pytest.raises(SparsityError, match="unscale_"):
            step(unscale=False)
        return
    step(unscale=False)
    assert hooks.step == 2


def test_mistakes() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(SparsityError, match="holds none of the weights of pruner 4x1; give the one that trains them"):
        hooked(attached(model), SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
    hooks = hooked(attached(model), optimizer)
    with pytest.raises(SparsityError, match="has hooks of pruners already"):
        hooked(attached(model), optimizer)
    hooks.remove()
    again = hooked(attached(model), optimizer)
    with pytest.raises(SparsityError, match="the state is of pruners other, and these are 4x1"):
        again.load_state_dict({"step": 1, "pruners": {"other": {}}})


def test_a_training_that_ends_early_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    with caplog.at_level(logging.WARNING), hooked(attached(model), optimizer) as hooks:
        train(model, optimizer, range(7))
        assert not hooks.done
    assert "training ended after 7 steps, before the last mask update of pruner 4x1 (step 16)" in caplog.text
    weights = copy.deepcopy(model.state_dict())
    train(model, optimizer, range(7, 9))
    assert not torch.equal(weights["0.weight"], model.state_dict()["0.weight"])
    assert hooks.step == 7


def test_a_step_with_a_closure_observes_the_gradients_that_it_computes() -> None:
    by_calls, by_hooks = network(), network()
    pruners, optimizer = attached(by_calls), AdamW(by_calls.parameters(), lr=1e-2)
    pruners[0].project(0, optimizer)
    train(by_calls, optimizer, pruners=pruners)
    other = AdamW(by_hooks.parameters(), lr=1e-2)
    hooks = hooked(attached(by_hooks), other)
    for number, (inputs, labels) in enumerate(batches()):

        def closure(inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
            other.zero_grad()
            loss = nn.functional.cross_entropy(by_hooks(inputs), labels)
            loss.backward()
            return loss

        loss = other.step(closure) if number % 2 else other.step(closure=closure)
        assert loss is not None
    assert hooks.done
    for one, two in zip(by_calls.parameters(), by_hooks.parameters(), strict=True):
        assert torch.equal(one, two)
