"""Properties of all post-training methods: exact counts, legal masks, blocks in order, no hooks left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from posttraining_helpers import batches_of, calibrated, calibration_on, double, plan_at_start
from sparsity_helpers import PLAIN, examples, mlp, train
from torch import Tensor, nn

from hydraprune.sparsity import (
    AtOnce,
    Block,
    Exp,
    Family,
    GroupLasso,
    Layers,
    NofM,
    OneShot,
    Plans,
    PostTraining,
    Progressive,
    RetrainFree,
    SparseGpt,
    SparsityError,
    Unregularized,
    Wanda,
    attach,
    block,
    custom,
    exact,
    holds_pattern,
    n_of_m,
)

METHODS = [Wanda(), SparseGpt(), RetrainFree()]
CHANNELS = [Block(1, "channel"), Block("channel", 1), Block(2, "channel"), Block("channel", 3)]
SMALL = [Block(1, 1), Block(2, 1), Block(1, 4), Block(2, 3), NofM(2, 4), NofM(1, 3), NofM(1, 12)]
PAIRS = [
    *((Wanda(), pattern) for pattern in [*CHANNELS, *SMALL]),
    *((SparseGpt(columns=5), pattern) for pattern in [CHANNELS[1], CHANNELS[3], *SMALL]),
    *((RetrainFree(), pattern) for pattern in CHANNELS),
]


def two_layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Dropout(0.5), nn.Linear(24, 12)).double()


@given(st.sampled_from(PAIRS), st.floats(0.05, 1), st.sampled_from(["global", "local", "erk"]), st.integers(0, 99))
@examples(70)
def test_counts_are_exact_and_masks_legal(
    pair: tuple[PostTraining, Block | NofM], part: float, scope: str, seed: int
) -> None:
    method, pattern = pair
    target = round(part * float(pattern.share) * 0.9, 3)
    model = two_layers(seed)
    shapes = [(24, 1, 12), (12, 1, 24)]
    pruner = calibrated(model, custom(pattern, target, scope=scope, cap=1.0), method, batches_of(12, seed=seed))
    for weight, layer, shape in zip(pruner.weights, (model[0], model[3]), shapes, strict=True):
        keep = layer.weight.detach()[:, None] != 0
        assert pattern.legal(keep)
        gone = int(pattern.empty_units(keep).sum())
        if scope == "local" or (scope == "global" and not isinstance(method, RetrainFree)):
            assert gone == int(pattern.units(shape) * exact(target) / pattern.share)
        # Where nothing at all is asked for there are no masks.
        assert torch.equal(pruner.masks.get(weight.name, layer.weight != 0), layer.weight != 0)
    total = sum(pattern.units(shape) for shape in shapes)
    pruned = sum(units.pruned for _, units in pruner.pools)
    assert pruned == sum(units.target for _, units in pruner.pools)
    if scope == "erk" or isinstance(method, RetrainFree):
        assert scope == "local" or pruned == int(total * exact(target) / pattern.share)
    assert holds_pattern(pruner, {w.name: w.parameter for w in pruner.weights}) == (True, pruned)


@given(st.sampled_from(PAIRS), st.floats(0, 1), st.integers(0, 99))
@examples(50)
def test_zeros_at_the_start_stay_zero(pair: tuple[PostTraining, Block | NofM], part: float, seed: int) -> None:
    method, pattern = pair
    model, target = two_layers(seed), 0.6 * float(pattern.share)
    before = []
    for layer, shape in ((model[0], (24, 1, 12)), (model[3], (12, 1, 24))):
        units = pattern.units(shape)
        cells = pattern.to_cells(torch.rand(shape))
        gone = torch.zeros(units, dtype=torch.bool)
        # Up to as many as asked for, anywhere in the layer.
        gone[torch.randperm(units)[: int(part * int(units * exact(target) / pattern.share))]] = True
        layer.weight.data *= pattern.mask(gone, cells, shape).squeeze(1)
        before.append(layer.weight == 0)
    plans = custom(pattern, target, scope="local", cap=1.0)
    pruner = calibrated(model, plans, method, batches_of(12, seed=seed))
    for layer, zero in zip((model[0], model[3]), before, strict=True):
        assert not layer.weight[zero].any()
    for structures, units in pruner.pools:
        empty = sum(int(s.empty({w.name: w.parameter for w in pruner.weights}).sum()) for s in structures)
        assert units.pruned == units.target == empty


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_model_sparser_than_the_target_is_refused(method: PostTraining) -> None:
    model = two_layers()
    model[0].weight.data[:20] = 0
    wanted = (2, "channel") if isinstance(method, RetrainFree) else (2, 1)
    with pytest.raises(
        SparsityError, match=r"target_sparsity=0.5: 0.weight has .* at zero when training starts, more than"
    ):
        calibrated(model, block(*wanted, 0.5, scope="local"), method, batches_of(12))
    pruner = calibrated(model, block(*wanted, 0.5, scope="local", initial_sparsity=0.0), method, batches_of(12))
    assert pruner.zeros == pruner.total // 2


class Deep(nn.Module):
    """Two blocks of two layers each, one of which reads what the other gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}) for _ in range(2)
        ).double()
        self.head = nn.Linear(8, 8).double()

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer["b"](layer["a"](inputs).relu()).relu()  # type: ignore[index]
        result: Tensor = self.head(inputs)
        return result


@pytest.mark.parametrize(("method", "name"), [(Wanda(), "squares"), (SparseGpt(), "products")])
def test_a_block_sees_the_outputs_of_the_pruned_blocks_before_it(method: PostTraining, name: str) -> None:
    """Every layer is pruned by itself, with the inputs that it should have seen."""
    model, batches, expected = Deep(), batches_of(8), Deep()
    calibrated(model, block(1, 1, 0.5, layers=Layers()), method, batches)

    def inputs_of(path: str) -> list[Tensor]:
        seen: list[Tensor] = []
        handle = expected.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
        for batch in batches:
            expected(batch)
        handle.remove()
        return seen

    stale = {path: inputs_of(path) for path in ("layers.0.b", "layers.1.a", "layers.1.b", "head")}
    for paths in (("layers.0.a", "layers.0.b"), ("layers.1.a", "layers.1.b"), ("head",)):
        seen = {path: inputs_of(path) for path in paths}
        if paths != ("layers.0.a", "layers.0.b"):
            assert not torch.allclose(seen[paths[0]][0], stale[paths[0]][0])
        for path in paths:
            alone = double(expected.get_submodule(path).weight.detach())
            calibrated(alone, block(1, 1, 0.5), method, seen[path])
            expected.get_submodule(path).weight.data = alone.weight.detach()
            torch.testing.assert_close(model.get_submodule(path).weight, expected.get_submodule(path).weight)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("training", [True, False])
def test_hooks_are_removed_and_the_mode_is_restored(method: PostTraining, training: bool) -> None:
    model = two_layers().train(training)
    modes: list[bool] = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    calibrated(
        model, block(1, "channel", 0.5) if method.name == "retrain_free" else n_of_m(2, 4), method, batches_of(12)
    )
    assert modes
    assert not any(modes)
    assert all(module.training is training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("method", [Wanda(), SparseGpt()], ids=lambda m: m.name)
def test_hooks_are_removed_after_a_failure(method: PostTraining) -> None:
    model = two_layers()

    def failing(count: int) -> Iterator[Tensor]:
        yield model(batches_of(12)[0]).sum()
        raise RuntimeError("out of data")

    (pruner,) = attach(model, {"p": plan_at_start(n_of_m(2, 4), method)}, PLAIN, steps=0, calibration=failing)
    with pytest.raises(RuntimeError, match="out of data"):
        pruner.project(0)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_given_number_of_batches_is_used(method: PostTraining) -> None:
    import dataclasses

    asked: list[int] = []
    model, batches = two_layers(), batches_of(12)

    def counting(count: int) -> Iterator[Tensor]:
        asked.append(count)
        return calibration_on(model, batches)(count)

    plans = block(1, "channel", 0.5) if method.name == "retrain_free" else n_of_m(2, 4)
    plan = plan_at_start(plans, dataclasses.replace(method, batches=2))  # type: ignore[type-var]
    (pruner,) = attach(model, {"p": plan}, PLAIN, steps=0, calibration=counting)
    pruner.project(0)
    assert asked == [2] * (1 if method.name == "retrain_free" else 2)  # of two blocks


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("warmup", [0, 3])
def test_masks_hold_while_training_and_a_resumed_run_calibrates_no_more(method: PostTraining, warmup: int) -> None:
    plans = block(2, "channel", 0.5) if method.name == "retrain_free" else block(4, 1, 0.5)
    (plan,) = plans.parts.values()
    batches = [batch.float() for batch in batches_of(20)]

    def pruner_on(model: nn.Module, calibration: Any) -> Any:
        completed = plan.completed(method, OneShot(warmup=warmup))
        return attach(model, {"p": completed}, PLAIN, steps=8, calibration=calibration)[0]

    whole = mlp()
    pruner = pruner_on(whole, calibration_on(whole, batches))
    zeros = []
    train(whole, [pruner], range(8), after=lambda step: zeros.append(int((whole[0].weight == 0).sum())))
    assert zeros[:warmup] == [0] * warmup
    assert zeros[warmup] > 0
    assert len(set(zeros[warmup:])) == 1

    cut, optimizer = mlp(), None
    first = pruner_on(cut, calibration_on(cut, batches))
    optimizer = torch.optim.AdamW(cut.parameters(), lr=1e-2, weight_decay=0.1)
    train(cut, [first], range(5), optimizer)
    again = pruner_on(cut, None)
    again.load_state_dict(first.state_dict())
    train(cut, [again], range(5, 8), optimizer)
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), cut.parameters(), strict=True))
    assert [units for _, units in again.pools] == [units for _, units in pruner.pools]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_transposed_layers_are_pruned_as_linear_ones(method: PostTraining) -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    weight, batches = torch.randn(8, 12).double(), batches_of(12)
    plain, transposed = double(weight), pytorch_utils.Conv1D(8, 12).double()
    transposed.weight.data = weight.t().clone()
    for plans in [block(2, "channel", 0.5)] if method.name == "retrain_free" else [n_of_m(2, 4), block(2, 1, 0.5)]:
        calibrated(plain, plans, method, batches)
        calibrated(transposed, plans, method, batches)
        assert int((plain.weight == 0).sum()) == 48
        torch.testing.assert_close(transposed.weight.t(), plain.weight)
        plain.weight.data, transposed.weight.data = weight.clone(), weight.t().clone()


@pytest.mark.parametrize("method", [Wanda(), SparseGpt()], ids=lambda m: m.name)
def test_global_scope_becomes_local_in_the_plan(method: PostTraining) -> None:
    one, two = two_layers(), two_layers()
    pruner = calibrated(one, block(1, 1, 0.5), method, batches_of(12))
    calibrated(two, block(1, 1, 0.5, scope="local"), method, batches_of(12))
    assert pruner.plan.selection.scope == "local"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_target_of_zero_needs_no_calibration() -> None:
    (pruner,) = attach(two_layers(), {"p": plan_at_start(block(1, 1, 0.0), Wanda())}, PLAIN, steps=0)
    assert pruner.project(0)
    assert pruner.zeros == 0


def refusal_of(model: nn.Module, plans: Plans, method: PostTraining, batches: list[Tensor] | None = None) -> str:
    with pytest.raises(SparsityError) as error:
        calibrated(model, plans, method, batches_of(12) if batches is None else batches)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals() -> None:
    nan = two_layers()
    nan[0].weight.data[0, 0] = torch.nan
    halves = n_of_m(2, 4)
    for method in (Wanda(), SparseGpt()):
        conv = nn.Sequential(nn.Conv1d(4, 4, 3)).double()
        assert f"pruner={method.name}: 0.weight is a convolution" in refusal_of(conv, halves, method)
        assert "no batch" in refusal_of(two_layers(), halves, method, [])
        assert "not finite" in refusal_of(nan, halves, method)
        idle = nn.ModuleDict({"used": nn.Linear(12, 12), "idle": nn.Linear(12, 12)}).double()
        idle.forward = lambda x, model=idle: model["used"](x)  # type: ignore[assignment,method-assign,misc]
        assert refusal_of(idle, halves, method).startswith("idle.weight: the model does not use it")
    assert "no batch" in refusal_of(two_layers(), block(1, "channel", 0.5), RetrainFree(), [])
    assert "not finite" in refusal_of(nan, block(1, "channel", 0.5), RetrainFree())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_post_training_plans_that_do_not_fit(method: PostTraining) -> None:
    (plan,) = block(1, "channel", 0.5).parts.values()

    def line(*parts: Any, steps: int = 100) -> str:
        with pytest.raises(SparsityError) as error:
            attach(two_layers(), {"p": plan.completed(method, *parts)}, PLAIN, steps=steps)
        return str(error.value)

    once = f"pruner={method.name}: prunes once"
    assert line(Exp()) == f"{once}; use scheduler=oneshot or at_start"
    assert line(Exp(warmup=3), steps=0).startswith(once)
    assert line(OneShot(), Progressive()) == f"pruner={method.name}: its masks change at once; use progressive=none"
    assert "use regularizer=none" in line(OneShot(), AtOnce(), GroupLasso(1e-3))
    if method.name != "sparse_gpt":
        assert line(OneShot(warmup=1), steps=0).startswith("scheduler.warmup=1: must be 0")
        complete = plan.completed(method, OneShot(), AtOnce(), Unregularized())
        (pruner,) = attach(two_layers(), {"p": complete}, Family("x"), steps=0)
        with pytest.raises(SparsityError, match=rf"pruner={method.name}: prunes by calibration batches"):
            pruner.project(0)


def test_attaching_reads_no_weight() -> None:
    """Preflight checks attach pruners to models on the meta device."""
    for method in METHODS:
        plans = block("channel", 1, 0.5)
        (pruner,) = attach(two_layers().to("meta"), {"p": plan_at_start(plans, method)}, PLAIN, steps=0)
        assert [weight.name for weight in pruner.weights] == ["0.weight", "3.weight"]
