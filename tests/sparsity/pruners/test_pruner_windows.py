"""Scoring only the steps that can matter, and storing masks small: neither changes what is pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sparsity_helpers import adamw, mlp, pruner_of, through_a_file, train
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydraprune.sparsity import (
    Block,
    Criterion,
    Exp,
    Magnitude,
    NofM,
    OneShot,
    Plans,
    Pruner,
    Snip,
    SnipMomentum,
    SparsityError,
    block,
    n_of_m,
    zeros_of,
)

PATTERNS = [block(4, 1, 0.8), n_of_m(2, 4, 0.5), block(1, "channel", 0.5)]
MORE = [*PATTERNS, block(1, 1, 0.7), block("channel", 1, 0.5), block(2, 2, 0.6), n_of_m(1, 4, 0.6)]


@dataclass(frozen=True)
class Eager(SnipMomentum):
    """The same scores, taken at every step."""

    @property
    def horizon(self) -> int:
        return 10**9


# Windows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plans", PATTERNS, ids=lambda p: p.name)
def test_steps_that_cannot_matter_are_not_missed(plans: Plans) -> None:
    """A horizon of 75 steps and updates every 100: a quarter of the steps is not scored before it starts again."""
    schedule, steps = Exp(warmup=90, cooldown=30, frequency=100), 520
    found = []
    for criterion in (SnipMomentum(0.8), Eager(0.8)):
        model, remembered, masks = mlp(), [], []
        pruner = pruner_of(model, plans, criterion, schedule, steps)

        def note(step: int, pruner: Pruner = pruner, remembered: Any = remembered, masks: Any = masks) -> None:
            remembered.append(bool(pruner.state_dict()["memory"]))
            if pruner.updates.due(step):
                masks.append(pruner.masks)

        train(model, [pruner], range(steps), after=note)
        found.append((masks, [p.detach() for p in model.parameters()], sum(remembered)))
    (masks, weights, scored), (expected, expected_weights, all_scored) = found
    assert SnipMomentum(0.8).horizon == 75
    assert scored == 5 * 75
    assert all_scored == 490
    assert len(masks) == 5
    assert masks[-1]
    for ours, theirs in zip(masks, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], mask) for name, mask in theirs.items())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights, expected_weights, strict=True))


@pytest.mark.parametrize("plans", PATTERNS, ids=lambda p: p.name)
def test_score_state_exists_only_in_windows(plans: Plans) -> None:
    criterion = SnipMomentum(0.01)
    assert criterion.horizon == 4
    model, held = mlp(), []
    pruner = pruner_of(model, plans, criterion, Exp(warmup=8, cooldown=2, frequency=10), 30)
    assert [step for step in range(31) if pruner.updates.due(step)] == [8, 18, 28]
    train(model, [pruner], range(30), after=lambda step: held.append(step) if pruner.state_dict()["memory"] else None)
    # After step 8 it is the state that the update at 8 used; the next observation drops it.
    assert held == [*range(5, 9), *range(15, 19), *range(25, 29)]
    assert pruner.state_dict()["memory"] == {}


def reach(pruner: Pruner, with_gradients: bool = True) -> None:
    for weight in pruner.weights:
        weight.parameter.grad = torch.zeros_like(weight.parameter) if with_gradients else None


@pytest.mark.parametrize("criterion", [Snip(), SnipMomentum(0.0), SnipMomentum(0.01)], ids=repr)
def test_no_gradient_is_asked_for_between_windows(criterion: Criterion) -> None:
    pruner = pruner_of(mlp(), block(4, 1, 0.5), criterion, OneShot(warmup=20), 40)
    # But a frozen weight is not to be found out hours later.
    pruner.weights[0].parameter.requires_grad_(False)
    with pytest.raises(SparsityError, match="gets no gradient"):
        pruner.observe(0)
    pruner.weights[0].parameter.requires_grad_(True)
    reach(pruner)
    pruner.observe(0)
    reach(pruner, with_gradients=False)
    for step in [*range(1, 20 - max(3, criterion.horizon)), *range(20, 40)]:
        pruner.observe(step)
    assert pruner.state_dict()["memory"] == {}


# Masks --------------------------------------------------------------------------------------------


def at_once(model: nn.Module, plans: Plans, target: float = 0.5) -> Pruner:
    pruner = pruner_of(model, plans, Magnitude(), OneShot(), 1)
    assert pruner.project(0)
    return pruner


@pytest.mark.parametrize(
    ("plans", "numbers"),
    [
        # Layers of 20 x 20 and 40 x 20: one number per block or channel, per weight where a group's zeros are free.
        (block(4, 1, 0.5), [100, 200]),
        (block(2, 2, 0.5), [100, 200]),
        (block(1, "channel", 0.5), [20, 40]),
        (block("channel", 1, 0.5), [20, 20]),
        (block(1, 1, 0.5), [400, 800]),
        (n_of_m(2, 4, 0.5), [400, 800]),
    ],
    ids=lambda value: value.name if isinstance(value, Plans) else "",
)
def test_masks_are_stored_as_small_as_they_broadcast(plans: Plans, numbers: list[int]) -> None:
    pruner = at_once(mlp(), plans)
    assert [0 if keep is None else keep.numel() for keep in pruner._masks.kept] == numbers
    assert [mask.shape for mask in pruner.masks.values()] == [(20, 20), (40, 20)]


class Layers(nn.Module):
    """One layer of every kind that may be pruned, with odd enough sizes to tell the axes apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(12, 16)
        self.transposed = Conv1D(8, 16)
        self.spatial = nn.Conv2d(8, 4, (3, 2))
        self.temporal = nn.Conv1d(4, 8, 3)
        self.pointwise = nn.Conv2d(8, 8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, 12] -> [batch, 8, 1, n]."""
        hidden = self.transposed(torch.tanh(self.linear(inputs)))
        image = hidden[:, :, None, None] * torch.arange(1.0, 31.0).view(1, 1, 5, 6).cos()
        flat = self.temporal(torch.tanh(self.spatial(image)).flatten(2))
        return self.pointwise(torch.tanh(flat).unsqueeze(2))


def stepped(model: nn.Module, pruner: Pruner, steps: range, optimizer: torch.optim.Optimizer) -> None:
    for step in steps:
        inputs = torch.randn(4, 12, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1)


@pytest.mark.parametrize("plans", MORE, ids=lambda p: p.name)
def test_every_kind_of_layer_is_masked_by_its_mask(plans: Plans) -> None:
    model = Layers()
    pruner = pruner_of(model, plans, SnipMomentum(), Exp(warmup=2, cooldown=2, frequency=2), 10)
    stepped(model, pruner, range(10), adamw(model))
    masks, parameters = pruner.masks, dict(model.named_parameters())
    assert set(masks) == {f"{name}.weight" for name in ("linear", "transposed", "spatial", "temporal", "pointwise")}
    for weight in pruner.weights:
        parameter, mask = parameters[weight.name], masks[weight.name]
        assert mask.shape == parameter.shape
        assert torch.equal(parameter != 0, mask)
        assert isinstance(pruner.plan.pattern, (Block, NofM))
        assert pruner.plan.pattern.legal(weight.view(mask))
    (units,) = (units for _, units in pruner.pools)
    assert units.pruned == units.target > 0
    assert pruner.zeros == sum(zeros_of(parameters[name]) for name in masks)


def test_transposed_and_spatial_weights_by_hand() -> None:
    model = nn.ModuleDict({"transposed": Conv1D(2, 4), "spatial": nn.Conv2d(2, 2, 2)})
    for module in model.values():
        module.weight.data = torch.arange(1.0, 1 + module.weight.numel()).view(module.weight.shape)
    # Rows are outputs: columns of the transposed weight, the first axis of the spatial one.
    at_once(model["transposed"], block(2, 1, 0.5))
    assert model["transposed"].weight.tolist() == [[0, 0], [0, 0], [5, 6], [7, 8]]
    at_once(model["spatial"], block("channel", 1, 0.5))
    assert model["spatial"].weight.flatten(2).tolist() == [[[0] * 4, [5, 6, 7, 8]], [[0] * 4, [13, 14, 15, 16]]]


# State --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [7, 11, 12, 14, 21])
@pytest.mark.parametrize("plans", MORE, ids=lambda p: p.name)
def test_a_run_resumed_in_a_window_equals_the_uninterrupted_one(plans: Plans, cut: int) -> None:
    """Updates at 8, 12, ..., each after a window of 3 steps: cut within one, at an update, and between (21)."""
    schedule, steps = Exp(warmup=8, cooldown=2, frequency=4), 26

    def started() -> tuple[nn.Module, Pruner, torch.optim.Optimizer]:
        model = Layers()
        return model, pruner_of(model, plans, SnipMomentum(0.001), schedule, steps), adamw(model)

    whole, masks, optimizer = started()
    stepped(whole, masks, range(steps), optimizer)
    first = started()
    stepped(first[0], first[1], range(cut), first[2])
    assert bool(first[1].state_dict()["memory"]) == (cut != 21)
    second = started()
    for holder, state in zip(second, through_a_file([part.state_dict() for part in first]), strict=True):
        holder.load_state_dict(state)
    stepped(second[0], second[1], range(cut, steps), second[2])
    for name, value in whole.state_dict().items():
        assert torch.equal(second[0].state_dict()[name], value), name
    assert second[1].masks.keys() == masks.masks.keys()
    assert all(torch.equal(second[1].masks[name], mask) for name, mask in masks.masks.items())
    assert second[1].pools[0][1] == masks.pools[0][1]


def test_a_state_holds_masks_of_the_parameters_shapes() -> None:
    model = Layers()
    pruner = at_once(model, block(4, 1, 0.5))
    state = pruner.state_dict()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert {name: mask.shape for name, mask in state["masks"].items()} == {
        w.name: shapes[w.name] for w in pruner.weights
    }
    assert {mask.dtype for mask in state["masks"].values()} == {torch.bool}
