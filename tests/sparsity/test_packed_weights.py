"""Packed weights, chosen by the names of their parameters: layouts, blocks inside one matrix, refusals, whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import save_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sparsity_helpers import plan_of
from torch import nn

from hydraprune.sparsity import (
    Exp,
    Family,
    Layers,
    Magnitude,
    OneShot,
    Plans,
    Pruner,
    SnipMomentum,
    SparsityError,
    Wanda,
    attach,
    block,
    n_of_m,
)
from hydraprune.sparsity.layouts import PACKED

IN_PROJ = {"in_proj_weight": "linear"}
UP = Layers(types=[], packed={"up": "experts"})


def half(rows: int | str = 4, **more: Any) -> Plans:
    """Half of the blocks of one input channel."""
    return block(rows=rows, cols=1, target_sparsity=0.5, **more)  # type: ignore[arg-type]


@given(st.sampled_from(sorted(PACKED)), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
@settings(deadline=None)
def test_layouts_go_there_and_back(kind: str, experts: int, rows: int, columns: int) -> None:
    layout, dimensions = PACKED[kind]
    matrices = torch.arange(experts * rows * columns).reshape(experts, rows, columns)
    stored = matrices.transpose(1, 2) if "transposed" in kind else matrices
    stored = stored if dimensions == 3 else stored[0]
    view = layout.view(stored)
    expected = matrices if dimensions == 3 else matrices[:1]
    assert torch.equal(view, expected.reshape(-1, 1, columns))
    assert torch.equal(layout.weight(view, stored.shape), stored)


class Experts(nn.Module):
    """Two experts in one parameter each way round, of which every token uses both."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (2, 6, 8) if transposed else (2, 8, 6)
        self.up = nn.Parameter(torch.randn(shape, generator=generator))
        self.down = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = self.up if self.up.shape[1] == 6 else self.up.transpose(1, 2)
        return self.down(torch.cat([x @ up[0], x @ up[1]], -1))


def pruned(model: nn.Module, plans: Plans) -> Pruner:
    (pruner,) = attach(model, {plans.name: plan_of(plans, Magnitude(), OneShot())}, Family("mine"), steps=0)
    assert pruner.project(0)
    return pruner


@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_of_experts(transposed: bool) -> None:
    model = Experts(transposed)
    kind = "transposed_experts" if transposed else "experts"
    before = model.up.detach().clone()
    layers = Layers(types=[], packed={"^up$": kind})
    pruned(model, block(rows=4, cols=1, target_sparsity=0.5, scope="local", layers=layers))
    zero = model.up == 0
    matrices = zero.transpose(1, 2) if transposed else zero
    blocks = matrices.reshape(2, 2, 4, 6)
    assert bool((blocks.all(2) | ~blocks.any(2)).all())
    assert int(zero.sum()) == zero.numel() // 2
    assert torch.equal(model.up, before * ~zero)


def test_joint_projections_of_torch() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    pruned(model, n_of_m(2, 4, layers=Layers(packed=IN_PROJ)))
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            assert bool(((weight.reshape(-1, 4) == 0).sum(1) == 2).all()), name


def test_criteria_with_gradients_and_state() -> None:
    torch.manual_seed(0)
    plans = block(rows=4, cols=1, target_sparsity=0.75, layers=Layers(types=[], packed=IN_PROJ))
    plan = plans.parts["4x1"].completed(SnipMomentum(), Exp(warmup=1, cooldown=2, frequency=2))
    ends = []
    for cut in (False, True):
        torch.manual_seed(1)
        model = nn.MultiheadAttention(16, 2, batch_first=True)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        (pruner,) = attach(model, {"4x1": plan}, Family("mine"), steps=12)
        for step in range(12):
            if cut and step == 5:
                state = pruner.state_dict()
                (pruner,) = attach(model, {"4x1": plan}, Family("mine"), steps=12)
                pruner.load_state_dict(state)
            x = torch.randn(4, 5, 16)
            model(x, x, x)[0].square().mean().backward()
            pruner.observe(step)
            optimizer.step()
            pruner.project(step + 1)
            optimizer.zero_grad()
        ends.append(model.in_proj_weight.detach().clone())
        assert float((model.in_proj_weight == 0).float().mean()) == 0.75
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ({"in_proj_weight": "experts"}, r"its shape \(48, 16\) is not that of `experts`; choose from linear"),
        ({"in_proj": "rows"}, "layouts are linear, transposed, experts, transposed_experts"),
        ({"nothing": "linear"}, "matches no parameter that is not a layer's weight; names look like"),
        ({"out_proj": "linear"}, "matches no parameter that is not a layer's weight"),
        ({"(": "linear"}, "not a regular expression"),
        ([], "must map parameter names to layouts"),
    ],
)
def test_wrong_choices_are_refused(packed: Any, message: str) -> None:
    with pytest.raises(SparsityError, match=message):
        pruned(nn.MultiheadAttention(16, 2), half(layers=Layers(packed=packed)))


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(SparsityError, match="3 does not divide the 8 rows of one of its 2 matrices"):
        pruned(
            Experts(False),
            half(rows=3, layers=UP),
        )
    with pytest.raises(SparsityError, match="one input channel of all its 2 matrices"):
        pruned(
            Experts(False),
            half(rows="channel", layers=UP),
        )
    model, plans = nn.MultiheadAttention(16, 2), n_of_m(2, 4, layers=Layers(packed=IN_PROJ))
    with pytest.raises(SparsityError, match="is a packed weight, whose inputs are not those of its module"):
        attach(model, {plans.name: plan_of(plans, Wanda(), OneShot())}, Family("mine"), steps=0)


def test_excluded_and_outside_weights_stay_dense() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = (nn.MultiheadAttention(16, 2) for _ in range(3))

    model = Two()
    (pruner,) = attach(
        model,
        {
            "4x1": plan_of(
                half(layers=Layers(packed=IN_PROJ, exclude=["^two"])),
                Magnitude(),
                OneShot(),
            )
        },
        Family("mine", outside=["head"]),
        steps=0,
    )
    assert [weight.name for weight in pruner.weights] == ["one.out_proj.weight", "one.in_proj_weight"]


def test_a_run_prunes_experts(
    train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    save_checkpoint(workplace / "mixtral", "mixtral")
    words = [word for word in small if not word.startswith("model=")]
    packed = "pattern.layers.packed={experts.gate_up_proj: experts, experts.down_proj: experts}"
    finished = train(*words, "model.path=mixtral", packed, "distill=none")
    assert finished.code == 0, finished.err
    (path,) = workplace.glob("outputs/toy/mixtral/4x1/*/report.json")
    report = json.loads(path.read_text())
    assert report["pattern_ok"]
    assert "model.layers.0.mlp.experts.down_proj" in report["parts"]["4x1"]["weights"]
    saved = load_file(path.parent / "model" / "model.safetensors")
    counted = {name: float((weight == 0).float().mean()) for name, weight in saved.items() if "experts" in name}
    assert counted
    assert min(counted.values()) > 0.3
    shown = hydraprune("verify", str(path.parent / "model"))
    assert shown.code == 0, shown.err
