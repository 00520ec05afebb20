"""Layers that a step leaves out, as layer drop and experts do: no evidence in that step, and what they had stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import adamw, examples, pruner_of, through_a_file
from torch import Tensor, nn

from hydraprune.sparsity import (
    Block,
    BlockMask,
    Criterion,
    Exp,
    Family,
    Fisher,
    Gradient,
    Hold,
    Method,
    Movement,
    OneShot,
    Platon,
    Progressive,
    Pruner,
    RetrainFree,
    Rigl,
    Snip,
    SnipMomentum,
    SparsityError,
    SrSte,
    attach,
    custom,
    zeros_of,
)

CRITERIA: list[Criterion] = [
    Gradient(), Snip(), SnipMomentum(), BlockMask(), Movement(), Platon(), Fisher(), Rigl(),
]  # fmt: skip
STEPS, LAYERS = 24, 4


class Dropping(nn.Module):
    """Layers on a residual stream, some of which a step leaves out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(LAYERS))

    def forward(self, inputs: Tensor, used: list[bool]) -> Tensor:
        for layer, use in zip(self.layers, used, strict=True):
            if use:
                inputs = inputs + torch.tanh(layer(inputs))
        return inputs


def run(model: Dropping, pruner: Pruner, use: dict[int, list[bool]], steps: range, optimizer: Any = None) -> Any:
    optimizer = optimizer or adamw(model)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs, targets = (torch.randn(6, 8, generator=generator) for _ in range(2))
        optimizer.zero_grad(set_to_none=True)
        loss = (model(inputs, use[step]) - targets).square().mean()
        if loss.requires_grad:
            loss.backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1, optimizer)
    return optimizer


def drawn(seed: int, chance: float) -> dict[int, list[bool]]:
    generator = torch.Generator().manual_seed(seed)
    return {step: (torch.rand(LAYERS, generator=generator) >= chance).tolist() for step in range(STEPS)}


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: c.name)
@examples(10)
@given(seed=st.integers(0, 999), chance=st.floats(0.1, 0.6))
def test_layer_drop_reaches_the_target(criterion: Criterion, seed: int, chance: float) -> None:
    use = drawn(seed, chance)
    use[0] = [True, False, True, False]
    use[1] = [False, True, False, True]
    model = Dropping()
    schedule = Hold(warmup=8, frequency=5) if isinstance(criterion, Rigl) else Exp(warmup=8, cooldown=2, frequency=5)
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), criterion, schedule, STEPS)
    run(model, pruner, use, range(STEPS))
    assert pruner.pools[0][1].pruned == pruner.pools[0][1].target == 32


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: c.name)
def test_a_step_without_a_gradient_leaves_scores_as_they_were(criterion: Criterion) -> None:
    model = Dropping()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), criterion, OneShot(warmup=3), STEPS)
    for step, used in enumerate([[True] * 4, [True, False, True, False]]):
        model.zero_grad(set_to_none=True)
        model(torch.randn(6, 8), used).square().sum().backward()
        before = {name: state.clone() for name, state in pruner.state_dict()["memory"].items()}
        pruner.observe(step)
    after = pruner.state_dict()["memory"]
    same = [torch.equal(after[f"layers.{i}.weight"], before[f"layers.{i}.weight"]) for i in range(LAYERS)]
    assert same == [False, True, False, True]


def test_a_layer_that_is_always_used_scores_as_if_all_were() -> None:
    states = []
    for skipping in (False, True):
        model = Dropping()
        pruner = pruner_of(model, custom(Block(4, 1), 0.5), SnipMomentum(), OneShot(warmup=9), STEPS)
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            for i, layer in enumerate(model.layers):
                gradient = torch.randn(8, 8, generator=generator)
                layer.weight.grad = None if skipping and i == 3 and step < 4 else gradient
            pruner.observe(step)
        states.append(pruner.state_dict()["memory"])
    assert all(torch.equal(states[0][f"layers.{i}.weight"], states[1][f"layers.{i}.weight"]) for i in range(3))
    assert not torch.equal(states[0]["layers.3.weight"], states[1]["layers.3.weight"])


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: c.name)
def test_a_layer_that_is_never_used_is_refused_by_name_at_the_update(criterion: Criterion) -> None:
    model = Dropping()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), criterion, OneShot(warmup=5), STEPS)
    use = {step: [True, True, False, True] for step in range(STEPS)}
    run(model, pruner, use, range(4))
    match = r"layers\.2\.weight got no gradient in any step before the update at step 5.*exclude it.*warm up longer"
    with pytest.raises(SparsityError, match=match):
        run(model, pruner, use, range(4, 6))


@pytest.mark.parametrize("cut", [3, 9, 12])
@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: c.name)
@pytest.mark.parametrize("progressive", [None, Progressive(2)])
def test_a_resumed_run_is_the_same(criterion: Criterion, cut: int, progressive: Progressive | None) -> None:
    use = drawn(3, 0.4) | {0: [True, False, False, True], 1: [False, True, True, False]}

    def made(model: Dropping) -> Pruner:
        return pruner_of(model, custom(Block(4, 1), 0.5), criterion, Exp(warmup=8, frequency=5), STEPS, progressive)

    whole, half = Dropping(), Dropping()
    run(whole, made(whole), use, range(STEPS))
    first = made(half)
    optimizer = run(half, first, use, range(cut))
    second = made(half)
    second.load_state_dict(through_a_file(first.state_dict()))
    run(half, second, use, range(cut, STEPS), optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))


def test_steps_that_use_no_layer_at_all_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = Dropping()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), SnipMomentum(), OneShot(warmup=6), STEPS)
    run(model, pruner, {step: [step == 2] * 4 for step in range(STEPS)}, range(STEPS))
    assert pruner.pools[0][1].pruned == 32
    assert [record.message for record in caplog.records] == [
        "pruner 4x1, step 0: no weight has a gradient; call observe(step) after backward, before gradients are cleared"
    ]
    idle = pruner_of(Dropping(), custom(Block(4, 1), 0.5), SnipMomentum(), OneShot(warmup=6), STEPS)
    idle.observe(5)
    with pytest.raises(SparsityError, match=r"no gradient was observed before it; call observe"):
        idle.project(6)


@pytest.mark.parametrize("method", [SrSte(), SrSte(decay=0.1)], ids=str)
def test_straight_through_training_of_a_layer_that_is_left_out(method: Method) -> None:
    model = Dropping()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), method, Hold(cooldown=4), STEPS)
    pruner.project(0)
    run(model, pruner, drawn(5, 0.5), range(STEPS))
    assert sum(zeros_of(layer.weight) for layer in model.layers) == 128


@pytest.mark.parametrize("ever", [True, False])
def test_calibration_batches_may_leave_a_layer_out(ever: bool) -> None:
    (plan,) = custom(Block(1, "channel"), 0.25).parts.values()
    plan = plan.completed(RetrainFree(batches=4), OneShot())
    model = Dropping()
    batches = [(torch.randn(6, 8), [True, ever and i == 2, True, True]) for i in range(4)]
    (pruner,) = attach(
        model,
        {"p": plan},
        Family("f"),
        1,
        calibration=lambda count: (model(batch, used).square().mean() for batch, used in batches[:count]),
    )
    if ever:
        pruner.project(0)
        assert pruner.pools[0][1].pruned == 8
    else:
        with pytest.raises(SparsityError, match=r"layers\.1\.weight gets no gradient on the calibration batches"):
            pruner.project(0)
