"""Gradients that are not finite, scaled, accumulated or missing; weights that are tied or computed."""

from __future__ import annotations

import math

import pytest
import torch
from sparsity_helpers import PLAIN, adamw, mlp, pruner_of
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from hydraprune.sparsity import (
    Block,
    Criterion,
    Exp,
    Gradient,
    Magnitude,
    Member,
    Movement,
    OneShot,
    Pruner,
    Snip,
    SnipMomentum,
    SparsityError,
    Weight,
    attach,
    block,
)
from hydraprune.sparsity.layouts import LAYOUTS
from hydraprune.sparsity.pruners.score_state import ScoreState

STEPS = 12
SCORING: list[Criterion] = [Gradient(), Snip(), SnipMomentum()]


def gradual(model: nn.Module, criterion: Criterion) -> Pruner:
    return pruner_of(model, block(4, 1, 0.5), criterion, Exp(warmup=3, cooldown=2, frequency=3), STEPS)


def loss_of(model: nn.Module, step: int, rows: slice = slice(None)) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    inputs, targets = torch.randn(8, 20, generator=generator), torch.randn(8, 40, generator=generator)
    return (model(inputs[rows]) - targets[rows]).square().mean()


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("criterion", SCORING, ids=lambda c: type(c).__name__)
def test_a_step_with_a_non_finite_gradient_is_skipped(criterion: Criterion, value: float, device: str) -> None:
    layer = nn.Linear(6, 8)
    state = ScoreState(criterion, [Member(Weight("weight", layer.weight, LAYOUTS["Linear"]), Block(4, 1))], "p")
    add = state._add
    if device == "elsewhere":  # what is done where a number cannot be read without waiting

        def add(gradients: list[Tensor]) -> None:
            state._add_without_sync(gradients, torch.stack([g.sum() for g in gradients]).isfinite().all())

    torch.manual_seed(0)
    good = [torch.randn(8, 1, 6) for _ in range(2)]
    bad = good[0].clone()
    bad[3, 0, 2] = value
    add([good[0]])
    before = [tensor.clone() for tensor in state.tensors or []]
    add([bad])
    assert state.tensors is not None
    assert torch.equal(state.tensors[0], before[0])
    add([good[1]])
    assert bool(state.tensors[0].isfinite().all())
    assert not torch.equal(state.tensors[0], before[0])


def test_skipped_steps_on_an_accelerator_and_a_resumed_state() -> None:
    """A saved state is of finite steps, whatever is skipped after it is loaded; one of skipped steps only is empty."""

    def new() -> ScoreState:
        weight = Weight("weight", nn.Parameter(torch.ones(8, 6)), LAYOUTS["Linear"])
        return ScoreState(SnipMomentum(), [Member(weight, Block(4, 1))], "p")

    good, bad = [torch.ones(8, 1, 6)], [torch.full((8, 1, 6), math.inf)]
    yes, no = torch.tensor(True), torch.tensor(False)
    state = new()
    state._add_without_sync(good, yes)
    state._add_without_sync(bad, no)
    resumed = new()
    resumed.load(state.state())
    for each in (state, resumed):
        each._add_without_sync(bad, no)
    assert torch.equal(state.scores(5)[0], resumed.scores(5)[0])
    skipped = new()
    skipped._add_without_sync(bad, no)
    assert skipped.state() == {}
    with pytest.raises(SparsityError, match="not finite"):
        skipped.scores(5)


@pytest.mark.parametrize("criterion", SCORING, ids=lambda c: type(c).__name__)
def test_a_loss_scaler_changes_nothing(criterion: Criterion) -> None:
    """Steps that it skips count, gradients are scored as they would be without it."""
    plain, scaled = mlp(), mlp()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    masks = []
    for model in (plain, scaled):
        pruner, optimizer = gradual(model, criterion), torch.optim.SGD(model.parameters(), lr=0.1)
        pruner.project(0, optimizer)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of(model, step)
            (scaler.scale(loss) if model is scaled else loss).backward()
            if step == 4:  # overflow: the scaler skips the step, and without one it would be left out by hand
                model[0].weight.grad[0, 0] = float("inf")
            if model is scaled:
                scaler.unscale_(optimizer)
            pruner.observe(step)
            if model is scaled:
                scaler.step(optimizer)
                scaler.update(1024.0)
            elif step != 4:
                optimizer.step()
            pruner.project(step + 1, optimizer)
        masks.append(pruner.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain.parameters(), scaled.parameters(), strict=True))


def test_an_overflow_at_the_step_before_an_update() -> None:
    for criterion in (Gradient(), Snip()):
        model = mlp()
        pruner, optimizer = gradual(model, criterion), adamw(model)
        pruner.project(0)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            if overflow := step in (2, 5, 8):  # right before an update
                model[2].weight.grad[0, 0] = float("nan")
            pruner.observe(step)
            if not overflow:
                optimizer.step()
            pruner.project(step + 1)
        assert pruner.pools[0][1].pruned == pruner.pools[0][1].target


def test_gradients_that_were_never_finite_are_refused() -> None:
    model = mlp()
    (plan,) = block(4, 1, 0.5).parts.values()
    (pruner,) = attach(model, {"4x1": plan.completed(Snip(), OneShot(warmup=2))}, PLAIN, 3)
    for step in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("nan"))
        pruner.observe(step)
    with pytest.raises(SparsityError, match=r"pruner 4x1, step 2: the gradients of the last 2 steps are not finite"):
        pruner.project(2)


@pytest.mark.parametrize("astray", [4, 5])
def test_a_diverged_training_is_distinguished_from_an_overflow(astray: int) -> None:
    model = mlp()
    (plan,) = block(4, 1, 0.5).parts.values()
    (pruner,) = attach(model, {"4x1": plan.completed(SnipMomentum(), OneShot(warmup=9))}, PLAIN, 20)
    for step in range(9):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if step >= 9 - astray else 1.0)
        pruner.observe(step)
    if astray == 4:
        assert pruner.project(9)
    else:
        with pytest.raises(SparsityError, match=r"step 9: the gradients of the last 5 steps are not finite; look at"):
            pruner.project(9)


@pytest.mark.parametrize("criterion", SCORING, ids=lambda c: type(c).__name__)
def test_accumulated_gradients_are_those_of_the_whole_batch(criterion: Criterion) -> None:
    masks = []
    for parts in ([slice(0, 8)], [slice(0, 4), slice(4, 8)]):
        model = mlp()
        pruner, optimizer = gradual(model, criterion), torch.optim.SGD(model.parameters(), lr=0.1)
        pruner.project(0)
        for step in range(STEPS):
            optimizer.zero_grad()
            for rows in parts:
                (loss_of(model, step, rows) / len(parts)).backward()
            pruner.observe(step)
            optimizer.step()
            pruner.project(step + 1)
        masks.append(pruner.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_are_kept_in_32_bits(dtype: torch.dtype) -> None:
    # 3e-5 * 3e-5 is below what 16 bits can hold; the published tool would score it 0.
    layer = nn.Linear(4, 4, bias=False)
    layer.weight.data = torch.full((4, 4), 3e-5)
    layer = layer.to(dtype)
    state = ScoreState(SnipMomentum(), [Member(Weight("weight", layer.weight, LAYOUTS["Linear"]), Block(1, 1))], "p")
    state._add([torch.full((4, 1, 4), 3e-5, dtype=dtype)])
    assert state.tensors is not None
    assert state.tensors[0].dtype == torch.float32
    if dtype != torch.float16:
        assert bool((state.tensors[0] > 0).all())


def check_refused(model: nn.Module, match: str) -> None:
    (plan,) = block(1, 1, 0.5).parts.values()
    with pytest.raises(SparsityError, match=match):
        attach(model, {"p": plan.completed(SnipMomentum(), Exp(warmup=1))}, PLAIN, 9)


def test_weights_that_are_computed_are_refused_by_name() -> None:
    for make in (parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal):
        model = nn.Sequential(nn.Linear(4, 4), make(nn.Linear(4, 4)))
        check_refused(model, r"1: its weight is computed \(parametrized\), not a parameter; exclude it")
    masked = nn.Sequential(nn.Linear(4, 4), prune.identity(nn.Linear(4, 4), "weight"))
    check_refused(masked, "1: its weight is computed")


def test_tied_weights_are_refused_by_both_names() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    check_refused(model, r"1\.weight is tied to 0\.weight, so they are one weight; exclude one of the two")


def test_a_frozen_weight_is_reported_at_the_first_step() -> None:
    model = mlp()
    model[2].weight.requires_grad_(False)
    pruner = gradual(model, SnipMomentum())
    loss_of(model, 0).backward()
    with pytest.raises(SparsityError, match=r"2\.weight gets no gradient, so pruner 4x1 cannot score it"):
        pruner.observe(0)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_all_scores_zero_gives_a_warning(scale: float, caplog: pytest.LogCaptureFixture) -> None:
    """Pruning in index order is legal, but hardly what anyone wants."""
    model = mlp()
    pruner = gradual(model, Snip())
    for step in range(6):
        (loss_of(model, step) * scale).backward()
        pruner.observe(step)
        pruner.project(step + 1)
    warnings = [record.message for record in caplog.records]
    assert [line.startswith("pruner 4x1, step 6: all scores are 0") for line in warnings] == (
        [True] if not scale else []
    )
    assert pruner.masks


def test_layers_that_are_emptied_are_named() -> None:
    model = mlp()
    first = next(model.parameters())
    with torch.no_grad():
        first *= 1e-6
    (plan,) = block(4, 1, 0.5, cap=1.0).parts.values()
    (pruner,) = attach(model, {"4x1": plan.completed(Magnitude(), OneShot(warmup=1))}, PLAIN, STEPS)
    assert pruner.emptied == []
    pruner.project(1)
    assert not first.any()
    assert pruner.emptied == [name for name, mask in pruner.masks.items() if not mask.any()]
    assert len(pruner.emptied) == 1


# Scores that are not finite -----------------------------------------------------------------------


class Given(Movement):
    """A score that is whatever the gradient is."""

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("cap", [0.98, 0.5])
@pytest.mark.parametrize("pattern", [Block(4, 1), Block(1, 1)], ids=lambda p: p.name)
def test_a_score_that_is_not_finite_is_refused(value: float, scope: str, cap: float, pattern: Block) -> None:
    model = mlp()
    plans = block(pattern.rows, pattern.cols, 0.4, scope, cap=cap)  # type: ignore[arg-type]
    pruner = pruner_of(model, plans, Given(), Exp(warmup=2, frequency=3), STEPS)
    for step in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        pruner.observe(step)
        if step == 3:  # as sums of many large steps may end
            memory = pruner.state_dict()["memory"]
            memory["2.weight"].flatten()[7] = value
        if step < 4:
            pruner.project(step + 1)
    with pytest.raises(SparsityError, match="step 5: a score is not finite; look for"):
        pruner.project(5)


def test_movement_scores_that_overflow_are_refused() -> None:
    model = mlp()
    pruner = pruner_of(model, block(4, 1, 0.5), Movement(), OneShot(warmup=3), STEPS)
    for step in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.sign(parameter.detach()) * 2e38
        pruner.observe(step)
        model[0].weight.data.mul_(100)
    with pytest.raises(SparsityError, match="step 3: a score is not finite"):
        pruner.project(3)
