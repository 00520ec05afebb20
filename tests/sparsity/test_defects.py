"""Known defects of the tool behind the published results, each shown to be absent here.

Numbers are those of the project's list of defects. Where another file tests one of them in full, the
test here is the short form.
"""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from sparsity_helpers import adamw, mlp, prune_now, pruner_of, train
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hydraprune.sparsity import (
    Block,
    Criterion,
    Exp,
    Family,
    Gradient,
    GroupLasso,
    Layers,
    Magnitude,
    NofM,
    OneShot,
    Plans,
    Progressive,
    Snip,
    SnipMomentum,
    SparsityError,
    attach,
    block,
    layer_sparsity,
    model_sparsity,
    n_of_m,
    zeros_of,
)
from hydraprune.sparsity.plans import heads

STEPS = 12


def zeros_in(model: nn.Module) -> int:
    return sum(zeros_of(p.detach()) for name, p in model.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("criterion", [Magnitude(), Snip(), SnipMomentum()], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("scope", ["global", "local"])
def test_1_a_layer_that_does_not_divide(criterion: Criterion, scope: Any) -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 40), nn.Linear(40, 6))
    with pytest.raises(SparsityError, match=r"4x1 does not fit 3\.weight \(6, 40\).*layers\.exclude=\['\^3\$'\]"):
        pruner_of(model, block(4, 1, 0.5, scope), criterion, Exp(warmup=1))
    pruner = pruner_of(model, block(4, 1, 0.5, scope, layers=Layers(exclude="^3$")), criterion, Exp(warmup=1))
    assert [weight.name for weight in pruner.weights] == ["0.weight", "2.weight"]


def test_2_a_convolution_at_its_cap_keeps_its_mask() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))
    model[0].weight.data *= 0.01  # so that the first would go altogether
    pruner = pruner_of(model, block(4, 1, 0.5, cap=0.6), Magnitude(), Exp(warmup=1, frequency=1), 20)
    for step in range(21):
        pruner.project(step)
        assert zeros_of(model[0].weight.detach()) <= 0.6 * model[0].weight.numel()
    assert zeros_of(model[0].weight.detach()) == int(0.6 * 72) * 4
    assert pruner.pools[0][1].pruned == pruner.pools[0][1].target


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (3, 4), (1, 4), (4, 8)])
def test_3_n_of_m_sparsity_is_counted_correctly(keep: int, of: int) -> None:
    layer = nn.Linear(16, 8, bias=False)
    prune_now(layer, n_of_m(keep, of))
    share = (of - keep) / of
    assert zeros_of(layer.weight.detach()) == share * layer.weight.numel()
    assert layer_sparsity(layer)[0].sparsity == share
    assert bool(NofM(keep, of).empty_units((layer.weight != 0).unsqueeze(1)).all())


@pytest.mark.parametrize(
    ("frequency", "plans", "order"),
    [(4, block(4, 1, 0.6), "scores"), (2, block(4, 1, 0.6), "scores"), (4, block(8, 1, 0.469), "linear")],
)
def test_4_progressive_pruning_ends_with_the_full_mask(frequency: int, plans: Plans, order: Any) -> None:
    model = nn.Sequential(nn.Linear(20, 24), nn.Tanh(), nn.Linear(24, 40))
    transition = Progressive(min(4, frequency), order)
    schedule = Exp(warmup=3, cooldown=9, frequency=frequency)
    pruner = pruner_of(model, plans, SnipMomentum(), schedule, 30, transition=transition)
    train(model, [pruner], range(30))
    (units,) = (units for _, units in pruner.pools)
    assert units.pruned == units.target
    # Reported from masks, counted in weights: the same, at the end of the cooldown too.
    assert pruner.zeros == zeros_in(model) == units.target * pruner.structures[0].unit_zeros


def test_5_scores_split_blocks() -> None:
    model, pruner = mlp(), None
    pruner = pruner_of(model, block(4, 1, 0.5), Magnitude(), Exp(warmup=3, frequency=4), 7, transition=Progressive(4))
    split = []
    for step in range(8):
        pruner.project(step)
        masks = pruner.masks
        split.append(any(not Block(4, 1).legal(mask.unsqueeze(1)) for mask in masks.values()))
    assert split[4:] == [True, True, True, False]


@pytest.mark.parametrize("count", [3, 7, 10, 40, 41, 75, 84, 362, 366])
@pytest.mark.parametrize("target", [0.5, 0.7, 0.9, 0.29])
def test_6_the_last_update_asks_for_the_target_itself(count: int, target: float) -> None:
    updates = Exp(warmup=1, frequency=1).over(count + 1)
    assert updates.count == count
    assert updates.sparsity(updates.last, target) == target
    layer = nn.Linear(8, 4, bias=False)
    pruner = pruner_of(layer, n_of_m(2, 4), Magnitude(), Exp(frequency=1), count)
    for step in range(count + 1):
        pruner.project(step)
    assert zeros_of(layer.weight.detach()) == 16


def test_7_plans_share_nothing() -> None:
    first = block(4, 1, 0.5).parts["4x1"]
    second = block(4, 1, 0.9).parts["4x1"]
    assert (float(first.selection.target_sparsity), float(second.selection.target_sparsity)) == (0.5, 0.9)
    # A head called `fc` takes neither `fc1` nor `fc2` with it, in its own model or the next.
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("fc1", "fc2", "fc")})
    for _ in range(2):
        (pruner,) = attach(model, {"p": first.completed(Magnitude(), OneShot())}, Family("mine", outside=["fc"]), 1)
        assert [weight.name for weight in pruner.weights] == ["fc1.weight", "fc2.weight"]


def test_8_group_lasso_divides_by_the_weight_s_norm() -> None:
    model = mlp()
    pruner = pruner_of(
        model, block(4, 1, 0.1), Magnitude(), Exp(warmup=1, cooldown=2, frequency=9), regularizer=GroupLasso(0.1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[0].weight.detach().clone()
    for step in range(4):
        pruner.project(step, optimizer)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)  # theirs: weights times -1e11
        optimizer.step()
    after = model[0].weight.detach()
    assert bool((after.abs() <= before.abs()).all())
    assert 0 < float((before - after).abs().max()) < 0.1


def test_9_nothing_is_patched() -> None:
    model = mlp()
    optimizer = adamw(model)
    step, forward, saving = optimizer.step, model.forward, torch.save
    for _ in range(2):
        pruner = pruner_of(model, block(4, 1, 0.5), SnipMomentum(), Exp(warmup=1, frequency=2))
    train(model, [pruner], range(3), optimizer)
    assert (optimizer.step, model.forward, torch.save) == (step, forward, saving)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert torch.equal(pickle.loads(pickle.dumps(model))[0].weight, model[0].weight)


def test_10_unusual_gradients() -> None:
    model = mlp()
    pruner = pruner_of(model, block(4, 1, 0.5), SnipMomentum(), Exp(warmup=2, frequency=2))
    model[0].weight.requires_grad_(False)
    with pytest.raises(SparsityError, match=r"0\.weight gets no gradient"):
        pruner.observe(0)
    model[0].weight.requires_grad_(True)
    for step in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("inf") if step == 1 else 1e-20)
        pruner.observe(step)
        pruner.project(step + 1)
    memory = pruner.state_dict()["memory"]
    assert all(bool(tensor.isfinite().all()) and float(tensor.max()) > 0 for tensor in memory.values())


def test_11_ties_and_unscored_starts() -> None:
    with pytest.raises(SparsityError, match="warm-up of at least 1 step"):
        pruner_of(mlp(), block(4, 1, 0.9), SnipMomentum(), OneShot())
    layer = nn.Linear(10, 10, bias=False)
    layer.weight.data.fill_(1.0)
    assert int((~prune_now(layer, block(1, 1, 0.37)).masks["weight"]).sum()) == 37


@pytest.mark.parametrize("criterion", [Gradient(), SnipMomentum()], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("bounds", [{"floor": 0.0}, {"floor": 0.3}, {"floor": 0.3, "cap": 0.7}], ids=str)
def test_12_the_order_of_layers_does_not_matter(criterion: Criterion, bounds: dict[str, float]) -> None:
    ends = []
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        torch.manual_seed(0)
        made = {name: nn.Linear(16, 16, bias=False) for name in "abc"}
        model = nn.ModuleDict({name: made[name] for name in order})
        pruner = pruner_of(model, block(4, 1, 0.5, **bounds), criterion, Exp(warmup=1, cooldown=1, frequency=2))
        generator = torch.Generator().manual_seed(1)
        for step in range(STEPS):
            grads = {name: torch.randn(16, 16, generator=generator) * (i + 1) for i, name in enumerate("abc")}
            for name, layer in made.items():
                layer.weight.grad = grads[name]
            pruner.observe(step)
            pruner.project(step + 1)
        ends.append({name: pruner.masks[f"{name}.weight"].clone() for name in "abc"})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in "abc")


def test_13_sparsity_is_that_of_all_the_weights() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(8, 8, bias=False))
            self.head = nn.Linear(8, 8, bias=False)

    wrapped = Wrapped()
    wrapped.model[0].weight.data.zero_()
    assert model_sparsity(wrapped) == 0.5
    assert {layer.name: layer.sparsity for layer in layer_sparsity(wrapped)} == {"model.0": 1.0, "head": 0.0}


def test_14_words_are_checked_at_construction() -> None:
    assert Layers(types="Linear").types == ("Linear",)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(4, 4))
    family = Family("plain")
    assert [weight.name for weight in Layers(types="Linear").select(model, family)] == ["0.weight"]
    for refuse in (
        lambda: Layers(types=["Linear", "LayerNorm"]),
        lambda: block(4, 1, 0.5, "globally"),  # type: ignore[arg-type]
        lambda: block(4, 1, 0.5, reduce="median"),  # type: ignore[arg-type]
        lambda: Progressive(4, "score"),  # type: ignore[arg-type]
        lambda: block(4, 1, 1.0),
    ):
        with pytest.raises(SparsityError, match=r"\w+=\w+"):
            refuse()
    with pytest.raises(TypeError, match="target"):
        block(4, 1, target=0.5)  # type: ignore[call-arg]


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_15_heads_are_scored_by_the_chosen_criterion(reduce: Any) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(8, 8, bias=False) for _ in range(4))

    model = nn.ModuleDict({"0": Attention()})
    roles = {"query": r"0\.query", "key": r"0\.key", "value": r"0\.value", "attention_output": r"0\.out"}
    family = Family("mine", {role: [name] for role, name in roles.items()}, heads=2)
    with torch.no_grad():
        for layer in (model["0"].query, model["0"].key, model["0"].value, model["0"].out):
            layer.weight.fill_(1.0)
            (layer.weight.t() if layer is model["0"].out else layer.weight)[:4] = 0.1
    masks = []
    for criterion in (Magnitude(), Gradient()):
        other = copy.deepcopy(model)
        plan = heads(0.5, reduce=reduce).parts["heads"].completed(criterion, OneShot(warmup=1))
        (pruner,) = attach(other, {"heads": plan}, family, 3)
        for weight in pruner.weights:
            weight.parameter.grad = 1 / weight.parameter.detach()  # the other way round
        pruner.observe(0)
        pruner.project(1)
        masks.append(pruner.masks["0.query.weight"])
    first = torch.arange(8).repeat_interleave(8).reshape(8, 8) < 4
    assert torch.equal(masks[0], ~first)
    assert torch.equal(masks[1], first)


class Calls(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def grads(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def test_17_and_18_steps_that_cannot_matter_cost_nothing() -> None:
    model = mlp()
    pruner = pruner_of(model, block(4, 1, 0.5), SnipMomentum(), OneShot(warmup=200, cooldown=5), 300)
    grads(model)
    pruner.project(0)
    pruner.observe(0)
    with Calls() as calls:  # before the window, beyond the memory of the criterion; nothing is masked yet
        pruner.observe(1)
        pruner.project(2)
    assert not any("mul" in name or "copy" in name for name in calls.names), calls.names
    for step in range(190, 201):
        pruner.observe(step)
        pruner.project(step + 1)
    storage = [weight.parameter.data_ptr() for weight in pruner.weights]
    with Calls() as calls:  # the cooldown: one multiplication in place for each layer, and no score
        pruner.observe(201)
        pruner.project(202)
    assert calls.names["aten._foreach_mul_.List"] == 1
    assert not any("abs" in name or "topk" in name or "sort" in name for name in calls.names), calls.names
    assert [weight.parameter.data_ptr() for weight in pruner.weights] == storage


def test_19_and_20_an_update_reads_as_much_for_many_layers_as_for_few() -> None:
    reads = []
    for layers in (3, 24):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(layers)))
        pruner = pruner_of(model, block(4, 1, 0.5), SnipMomentum(), Exp(warmup=2, frequency=2))
        for step in range(3):
            grads(model)
            pruner.observe(step)
            pruner.project(step + 1)
        grads(model)
        pruner.observe(3)
        with Calls() as calls:
            assert pruner.project(4)
        reads.append(calls.names["aten._local_scalar_dense.default"])
    assert reads[0] == reads[1] < 20


def test_22_a_state_has_all_that_a_resumed_run_needs() -> None:
    whole, halves = mlp(), mlp()
    schedule = Exp(warmup=2, cooldown=1, frequency=3)
    train(whole, [pruner_of(whole, block(4, 1, 0.5), SnipMomentum(), schedule)], range(STEPS))
    pruner, optimizer = pruner_of(halves, block(4, 1, 0.5), SnipMomentum(), schedule), adamw(halves)
    train(halves, [pruner], range(6), optimizer)
    state = pruner.state_dict()
    assert {"masks", "memory", "pruned", "parts", "begun"} <= set(state)
    again = pruner_of(halves, block(4, 1, 0.5), SnipMomentum(), schedule)
    again.load_state_dict(state)
    train(halves, [again], range(6, STEPS), optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
