"""Retraining-free pruning against masks inside the model, and against a search that tries exchanges one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from posttraining_helpers import ATTENTION, Attention, batches_of, calibrated, calibration_on
from sparsity_helpers import examples
from torch import Tensor, nn
from torch.func import functional_call

from hydraprune.sparsity import Plans, RetrainFree, SparsityError, block, n_of_m
from hydraprune.sparsity.plans import heads
from hydraprune.sparsity.posttraining.retrain_free import rearranged


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)).double()


def mask_gradients(model: nn.Module, name: str, shape: tuple[int, int], batches: list[Tensor]) -> Tensor:
    """dL/dm with masks in the forward pass, [batches, units]; `shape` is that of the masks, which are repeated."""
    weight = dict(model.named_parameters())[name].detach()
    rows = []
    for batch in batches:
        mask = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        sides = [side // m for side, m in zip(weight.shape, shape, strict=True)]
        whole = mask.repeat_interleave(sides[0], 0).repeat_interleave(sides[1], 1)

        def forward(inputs: Tensor, whole: Tensor = whole) -> Tensor:
            return functional_call(model, {name: weight * whole}, (inputs,))

        forward.training = False  # type: ignore[attr-defined]
        forward.eval = forward.train = lambda *_: None  # type: ignore[attr-defined]
        (loss,) = calibration_on(forward, [batch])(1)  # type: ignore[arg-type]
        rows.append(torch.autograd.grad(loss, mask)[0].flatten())
    return torch.stack(rows)


def exchanged(gradients: Tensor, count: int) -> set[int]:
    """The search of the paper, every norm computed directly."""
    fisher = gradients.square().sum(0).tolist()
    order = sorted(range(len(fisher)), key=fisher.__getitem__)
    gone = set(order[:count])
    for unit in order[count:]:
        gone.add(unit)
        norms = {out: float(gradients[:, sorted(gone - {out})].sum(1).norm()) for out in gone}
        gone.remove(min(norms, key=norms.__getitem__))
    return gone


SHAPES = [  # plans, units of the two layers as a grid
    (block(1, "channel", 0.5, scope="local"), (12, 1), (6, 1)),
    (block("channel", 1, 0.5, scope="local"), (1, 8), (1, 12)),
    (block(2, "channel", 0.5, scope="local"), (6, 1), (3, 1)),
    (block("channel", 2, 0.5, scope="local"), (1, 4), (1, 6)),
]


@pytest.mark.parametrize(("plans", "first", "second"), SHAPES, ids=lambda value: getattr(value, "name", ""))
def test_channels(plans: Plans, first: tuple[int, int], second: tuple[int, int]) -> None:
    model, batches = mlp(), batches_of(8, count=4)
    expected = []
    for name, grid in (("0.weight", first), ("2.weight", second)):
        gradients = mask_gradients(model, name, grid, batches)
        expected.append(exchanged(gradients, gradients.shape[1] // 2))
    calibrated(model, plans, RetrainFree(), batches)
    for layer, grid, units in zip((model[0], model[2]), (first, second), expected, strict=True):
        down, across = grid
        tiles = layer.weight.reshape(down, layer.weight.shape[0] // down, across, -1)
        empty = ~tiles.bool().any(3).any(1).flatten()
        assert set(empty.nonzero().flatten().tolist()) == units


def test_global_counts_are_those_of_the_fisher_information() -> None:
    model, batches = mlp(), batches_of(8)
    grids = {"0.weight": (12, 1), "2.weight": (6, 1)}
    gradients = {name: mask_gradients(model, name, grid, batches) for name, grid in grids.items()}
    ranked = sorted((float(f), name) for name, g in gradients.items() for f in g.square().sum(0))[:9]
    counts = {name: sum(1 for _, owner in ranked if owner == name) for name in grids}
    pruner = calibrated(model, block(1, "channel", 0.5), RetrainFree(), batches)
    for layer, name in ((model[0], "0.weight"), (model[2], "2.weight")):
        gone = set((~layer.weight.bool().any(1)).nonzero().flatten().tolist())
        assert gone == exchanged(gradients[name], counts[name])
    assert pruner.plan.selection.scope == "global"


def test_a_head_is_masked_at_its_output() -> None:
    torch.manual_seed(5)
    model, batches = Attention(), batches_of(8, count=5)
    rows = []
    for batch in batches:
        model.gates = torch.ones(4, dtype=torch.float64, requires_grad=True)
        (loss,) = calibration_on(model, [batch])(1)
        rows.append(torch.autograd.grad(loss, model.gates)[0])
    model.gates = torch.ones(4, dtype=torch.float64)
    calibrated(model, heads(0.5), RetrainFree(), batches, ATTENTION)
    gone = {h for h in range(4) if not model.output.weight[:, 2 * h : 2 * h + 2].any()}
    assert gone == exchanged(torch.stack(rows), 2)
    for layer in (model.query, model.key, model.value):
        assert {h for h in range(4) if not layer.weight[2 * h : 2 * h + 2].any()} == gone


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 8), st.integers(0, 10**6))
@examples(80)
def test_exchanges(units: int, batches: int, count: int, seed: int) -> None:
    count = min(count, units)
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(batches, units, generator=generator, dtype=torch.float64)
    first = torch.zeros(units, dtype=torch.bool)
    first[gradients.square().sum(0).argsort()[:count]] = True
    none = torch.zeros(units, dtype=torch.bool)
    found = rearranged(first, gradients, none)
    assert set(found.nonzero().flatten().tolist()) == (exchanged(gradients, count) if count else set())
    assert float(gradients[:, found].sum(1).norm()) <= float(gradients[:, first].sum(1).norm()) + 1e-9
    # What was empty before stays.
    kept = first & (torch.rand(units, generator=generator) < 0.5)
    again = rearranged(first, gradients, kept)
    assert int(again.sum()) == count
    assert bool((again | ~kept).all())


def test_no_gradient_or_flag_is_left_changed() -> None:
    model, batches = mlp(), batches_of(8)
    model[0].weight.requires_grad_(False)
    calibrated(model, block(1, "channel", 0.5), RetrainFree(), batches)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())


def test_biases_and_kept_weights_stay() -> None:
    model, batches = mlp(), batches_of(8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    calibrated(model, block(1, "channel", 0.5), RetrainFree(), batches)
    for name, parameter in model.named_parameters():
        changed = parameter != before[name]
        assert not parameter[changed].any()
        assert "weight" in name or not changed.any()


@pytest.mark.parametrize("plans", [block(1, 1, 0.5), block(2, 1, 0.5), n_of_m(2, 4)], ids=lambda p: p.name)
def test_other_patterns_are_refused(plans: Plans) -> None:
    with pytest.raises(SparsityError, match=rf"pruner=retrain_free: .* {plans.name} are not; choose pattern=1xchannel"):
        calibrated(mlp(), plans, RetrainFree(), batches_of(8))


def test_a_layer_that_the_loss_does_not_depend_on_is_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(8, 8), "idle": nn.Linear(8, 8)}).double()
    model.forward = lambda x: model["used"](x)  # type: ignore[assignment,method-assign]
    with pytest.raises(SparsityError, match=r"idle\.weight gets no gradient"):
        calibrated(model, block(1, "channel", 0.5), RetrainFree(), batches_of(8))
