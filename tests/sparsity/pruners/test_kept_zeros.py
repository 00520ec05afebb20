"""A sparse model keeps each of its zeros under any pattern, on top of the target; and masked weights are 0.0."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import PLAIN, adamw, examples, mlp, plan_of, pruner_of, through_a_file, train
from torch import nn

from hydraprune.sparsity import (
    Block,
    BlockMask,
    Family,
    Fisher,
    Gradient,
    Layers,
    Linear,
    Magnitude,
    Method,
    Movement,
    NofM,
    OneShot,
    Pattern,
    Platon,
    Progressive,
    Pruner,
    Rigl,
    Snip,
    SnipMomentum,
    SparseGpt,
    SrSte,
    Wanda,
    attach,
    block,
    custom,
    holds_pattern,
)

STEPS = 14
RAMP = Linear(warmup=2, frequency=4)
PATTERNS = [Block(1, 1), Block(4, 1), Block(2, 2), Block(1, "channel"), Block("channel", 1), NofM(2, 4), NofM(1, 4)]


def scattered(share: float, seed: int = 0) -> nn.Sequential:
    """Two layers in which single weights are zero, wherever chance has them."""
    model = mlp(seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in (model[0], model[2]):
        layer.weight.data *= torch.rand(layer.weight.shape, generator=generator) >= share
    return model


def zeros(model: nn.Sequential) -> list[torch.Tensor]:
    return [model[0].weight.detach() == 0, model[2].weight.detach() == 0]


def target_of(pattern: Pattern, share: float) -> float:
    return float(pattern.share) * share


@examples(50)
@given(
    share=st.floats(0.05, 0.6),
    part=st.floats(0.93, 0.97),
    pattern=st.sampled_from(PATTERNS),
    criterion=st.sampled_from([Magnitude(), Snip(), SnipMomentum(), Fisher()]),
    scope=st.sampled_from(["global", "local", "erk"]),
    seed=st.integers(0, 99),
)
def test_no_zero_is_lost(share: float, part: float, pattern: Pattern, criterion: Method, scope: Any, seed: int) -> None:
    model = scattered(share, seed)
    before = zeros(model)
    pruner = pruner_of(model, custom(pattern, target_of(pattern, part), scope, cap=1.0), criterion, RAMP, STEPS)

    def look(step: int) -> None:
        for had, has in zip(before, zeros(model), strict=True):
            assert not bool((had & ~has).any()), step
        assert pruner.zeros == sum(int(has.sum()) for has in zeros(model))

    train(model, [pruner], range(STEPS), after=look)
    assert holds_pattern(pruner, dict(model.named_parameters()))[0]
    assert all(units.pruned >= units.target for _, units in pruner.pools)


@pytest.mark.parametrize(("keep", "of", "share"), [(2, 4, 0.7), (1, 4, 0.5), (2, 4, 0.3)])
def test_groups_that_are_emptier_stay_so(keep: int, of: int, share: float) -> None:
    model = scattered(share)
    before = zeros(model)
    pruner = pruner_of(model, custom(NofM(keep, of)), SnipMomentum(), RAMP, STEPS)
    train(model, [pruner], range(STEPS))
    for had, has in zip(before, zeros(model), strict=True):
        expected = had.view(-1, of).sum(1).clamp(min=of - keep)
        assert torch.equal(has.view(-1, of).sum(1), expected)


def test_zeros_outside_of_pruned_blocks_come_on_top_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model = scattered(0.3)
    count = sum(int(has.sum()) for has in zeros(model))
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), Magnitude(), RAMP, STEPS)
    with caplog.at_level(logging.WARNING):
        train(model, [pruner], range(STEPS))
    assert f"{count:,} of 1,200 weights" in caplog.text
    assert "on top of the target, 0.5" in caplog.text
    assert "pattern.initial_sparsity=0" in caplog.text
    assert pruner.pools[0][1].pruned == 150
    assert pruner.zeros > 600


@pytest.mark.parametrize("criterion", [Gradient(), Movement(), Platon(), Rigl(), SrSte()], ids=lambda c: c.name)
def test_a_method_that_brings_weights_back_says_so(criterion: Method, caplog: pytest.LogCaptureFixture) -> None:
    model = scattered(0.5)
    with caplog.at_level(logging.WARNING):
        pruner_of(model, custom(Block(4, 1), 0.7), criterion, RAMP, STEPS).project(0)
    assert f"{criterion.name} may bring them back, and the target is 0.7" in caplog.text


def test_initial_sparsity_gives_up_all_zeros(caplog: pytest.LogCaptureFixture) -> None:
    model = scattered(0.5)
    pruner = pruner_of(model, custom(Block(4, 1), 0.6, initial_sparsity=0), SnipMomentum(), RAMP, STEPS)
    train(model, [pruner], range(STEPS))
    assert pruner.zeros == sum(int(has.sum()) for has in zeros(model)) == 720
    assert not caplog.records


def test_a_model_without_zeros_has_none_to_keep(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), SnipMomentum(), RAMP, STEPS)
    pruner.project(0)
    assert pruner.state_dict()["fixed"] == {}
    assert not caplog.records


@pytest.mark.parametrize("method", [Wanda(batches=2), SparseGpt(batches=2)], ids=lambda m: m.name)
@pytest.mark.parametrize("pattern", [Block(4, 1), NofM(2, 4)], ids=lambda p: p.name)
def test_post_training_keeps_them(pattern: Pattern, method: Method) -> None:
    model = scattered(0.6)
    before = zeros(model)
    batches = [torch.randn(16, 20, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    (plan,) = custom(pattern, target_of(pattern, 0.9)).parts.values()
    (pruner,) = attach(
        model,
        {"p": plan.completed(method, OneShot())},
        PLAIN,
        STEPS,
        calibration=lambda count: (model(batch).square().mean() for batch in batches[:count]),
    )
    train(model, [pruner], range(STEPS))
    assert all(not bool((had & ~has).any()) for had, has in zip(before, zeros(model), strict=True))
    assert holds_pattern(pruner, dict(model.named_parameters()))[0]


@pytest.mark.parametrize("cut", [1, 7, 11])
@pytest.mark.parametrize("progressive", [None, Progressive(2), Progressive(2, "linear")])
def test_kept_zeros_resume_bit_for_bit(cut: int, progressive: Progressive | None) -> None:
    def made(model: nn.Module) -> Pruner:
        ramp = Linear(warmup=3, frequency=4)
        return pruner_of(model, custom(Block(4, 1), 0.8), SnipMomentum(), ramp, STEPS, progressive)

    whole, half = scattered(0.4), scattered(0.4)
    train(whole, [made(whole)], range(STEPS))
    pruner, optimizer = made(half), adamw(half)
    train(half, [pruner], range(cut), optimizer)
    again = made(half)
    again.load_state_dict(through_a_file(pruner.state_dict()))
    assert again.zeros == pruner.zeros
    train(half, [again], range(cut, STEPS), optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))


# What a mask makes of numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pattern", [Block(4, 1), Block(1, "channel"), NofM(2, 4)], ids=lambda p: p.name)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_a_masked_weight_is_zero_whatever_was_written_there(number: float, pattern: Pattern, dtype: Any) -> None:
    model = mlp().to(dtype)
    pruner = pruner_of(model, custom(pattern, target_of(pattern, 0.5)), Magnitude(), OneShot(), STEPS)
    pruner.project(0)
    weights = dict(model.named_parameters())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for name, mask in pruner.masks.items():
            weights[name][~mask] = number
    pruner.project(1)
    for name, mask in pruner.masks.items():
        masked = weights[name][~mask].detach()
        # No -0.0 either, which costs room in a compressed file.
        assert not bool(masked.view(torch.uint8).any()), name
        assert torch.equal(weights[name], before[name])


def said_of_others(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "no pruner takes" in record.getMessage()]


def sparse_layers(zeros: dict[str, int]) -> nn.ModuleDict:
    """Layers of 8 x 8 numbers, of which so many are zero."""
    makers: dict[str, Any] = {"conv": lambda: nn.Conv1d(8, 8, 1), "attention": lambda: nn.MultiheadAttention(8, 2)}
    model = nn.ModuleDict({name: makers.get(name, lambda: nn.Linear(8, 8))() for name in zeros})
    for name, count in zeros.items():
        weight = model[name].in_proj_weight if name == "attention" else model[name].weight
        weight.data.flatten()[:count] = 0
    return model


LAYER_NAMES = ["query", "key", "ffn", "conv", "head", "attention"]


@examples(40)
@given(
    zeros=st.fixed_dictionaries({name: st.sampled_from([0, 0, 1, 17, 63]) for name in LAYER_NAMES}),
    taken=st.sets(st.sampled_from(LAYER_NAMES[:4]), min_size=1),
    frozen=st.sets(st.sampled_from(LAYER_NAMES[:5])),
    method=st.sampled_from([Magnitude(), SnipMomentum(), SrSte(), Rigl()]),
    steps=st.sampled_from([0, STEPS]),
)
def test_zeros_of_layers_that_no_pruner_takes_are_told_before_training(
    zeros: dict[str, int], taken: set[str], frozen: set[str], method: Method, steps: int
) -> None:
    model = sparse_layers(zeros)
    for name in frozen - taken:
        model[name].requires_grad_(False)
    if not steps:
        method = Magnitude()
    layers = Layers(include=[f"^{name}$" for name in taken])
    plan = plan_of(block(1, 1, 0.99, layers=layers, cap=1.0), method, RAMP if steps else OneShot())
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("hydraprune").addHandler(handler)
    try:
        attach(model, {"1x1": plan}, Family("mine", outside=["head"]), steps)
    finally:
        logging.getLogger("hydraprune").removeHandler(handler)
    lost = {name: n for name, n in zeros.items() if n and name not in taken | frozen}
    assert len(lines) == (1 if lost and steps else 0)
    if lines:
        size = sum(192 if name == "attention" else 64 for name in lost)
        assert lines[0].startswith(f"{sum(lost.values())} of {size} weights in layers that no pruner takes are zero")
        kinds = {name: "in_proj_weight" if name == "attention" else "weight" for name in lost}
        for name in list(lost)[:3]:
            assert f"{name}.{kinds[name]} ({lost[name]} of " in lines[0]
        assert ("more" in lines[0]) == (len(lost) > 3)


@pytest.mark.parametrize("lost", ["other layers", "none"])
def test_what_the_warning_says_is_what_training_does(lost: str, caplog: pytest.LogCaptureFixture) -> None:
    model = scattered(0.5)
    before = zeros(model)
    layers = Layers(include=["^0$"]) if lost == "other layers" else Layers()
    pruner = pruner_of(model, block(1, 1, 0.9, layers=layers), Magnitude(), RAMP, STEPS)
    said = said_of_others(caplog)
    train(model, [pruner], range(STEPS))
    kept = [not bool((had & ~has).any()) for had, has in zip(before, zeros(model), strict=True)]
    assert kept == [True, lost == "none"]
    assert len(said) == (lost == "other layers")
    if said:
        assert f"2.weight ({int(before[1].sum())} of 800)" in said[0]


@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Embedding(10, 8, padding_idx=0),
        lambda: nn.LayerNorm(8),
        lambda: nn.ParameterList([torch.zeros(1, 1, 8)]),
        lambda: nn.LazyLinear(8),
        lambda: nn.Linear(8, 8, device="meta"),
    ],
    ids=["padding", "normalisation", "a table that starts at zero", "lazy", "blueprint"],
)
def test_what_is_no_sparse_layer_is_not_told(other: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.ModuleDict({"pruned": nn.Linear(8, 8), "other": other()})
    pruner_of(model, block(1, 1, 0.5, layers=Layers(include=["pruned"])), Magnitude(), RAMP, STEPS)
    assert said_of_others(caplog) == []


@examples(60)
@given(
    share=st.floats(0.05, 0.6),
    target=st.floats(0.65, 0.95),
    pattern=st.sampled_from(PATTERNS),
    criterion=st.sampled_from([Magnitude(), Snip(), SnipMomentum(), Fisher(), BlockMask()]),
    dead=st.floats(0, 1),
    scope=st.sampled_from(["global", "local"]),
    seed=st.integers(0, 99),
)
def test_zero_units_count_as_pruned_whatever_they_tie_with(
    share: float, target: float, pattern: Pattern, criterion: Method, dead: float, scope: Any, seed: int
) -> None:
    """Gradients that are 0, all of them in a student that equals its teacher, make scores that tie with zero units'."""
    model = mlp(seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in (model[0], model[2]):
        shape = (layer.weight.shape[0], 1, layer.weight.shape[1])
        units = pattern.units(shape)
        gone = torch.randperm(units, generator=generator) < int(share * units)
        cells = pattern.to_cells(torch.rand(shape, generator=generator))
        layer.weight.data *= pattern.mask(gone, cells, shape).squeeze(1)
        moves = torch.rand(layer.weight.shape, generator=generator) >= dead
        layer.weight.register_hook(lambda gradient, moves=moves: gradient * moves)
    plans = custom(pattern, target_of(pattern, target), scope, cap=1.0)
    pruner = pruner_of(model, plans, criterion, RAMP, STEPS)
    train(model, [pruner], range(STEPS))
    found = [int(pattern.empty_units(layer.weight.detach().unsqueeze(1) != 0).sum()) for layer in (model[0], model[2])]
    assert sum(found) == sum(units.pruned for _, units in pruner.pools) == sum(u.target for _, u in pruner.pools)
    assert pruner.zeros == sum(int(has.sum()) for has in zeros(model))
    # Channels of the two layers differ in size; a group with a zero from the start ends with no more than it needs.
    sizes = [pattern.unit_zeros((len(layer.weight), 1, layer.weight.shape[1])) for layer in (model[0], model[2])]
    assert pruner.zeros == sum(count * size for count, size in zip(found, sizes, strict=True))
