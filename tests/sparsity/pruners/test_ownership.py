"""Weights that are replaced in the model after `attach`: refused by name, and never masked in a tensor of the past."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import adamw, examples, mlp, pruner_of, train
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize

from hydraprune.sparsity import (
    Block,
    Exp,
    Hold,
    LockZeros,
    Magnitude,
    Method,
    OneShot,
    Pruner,
    Rigl,
    Schedule,
    SnipMomentum,
    SparsityError,
    SrSte,
    Wanda,
    custom,
    zeros_of,
)

STEPS = 12
METHODS: dict[str, tuple[Method, Schedule]] = {
    "magnitude": (Magnitude(), Exp(warmup=2, frequency=2)),
    "snip_momentum": (SnipMomentum(), Exp(warmup=2, frequency=2)),
    "rigl": (Rigl(), Hold(warmup=2, frequency=2)),
    "sr_ste": (SrSte(), Exp(warmup=2, cooldown=2)),
    "lock": (LockZeros(), OneShot()),
    "wanda": (Wanda(), OneShot(warmup=11)),
}


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def overwrite(model: nn.Module) -> None:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def shared_with(model: nn.Module, index: int) -> None:
    model[index].weight = nn.Linear(20, len(model[index].weight)).weight  # type: ignore[index]


def bare(model: nn.Module, index: int) -> None:
    weight = model[index].weight.detach().clone()  # type: ignore[index]
    del model[index].weight  # type: ignore[index]
    model[index].weight = weight  # type: ignore[index]


class Half(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / 2


# Changes of the model at the layer of that index; the first ones replace every weight.
ALL: dict[str, Callable[[nn.Module, int], object]] = {
    "assign": lambda model, _: model.load_state_dict(weights_of(model), assign=True),
    "overwritten by a conversion": lambda model, _: overwrite(model),
}
ONE: dict[str, Callable[[nn.Module, int], object]] = {
    "module": lambda m, i: m.__setitem__(i, nn.Linear(20, len(m[i].weight))),  # type: ignore[index, operator]
    "copy of the module": lambda m, i: m.__setitem__(i, copy.deepcopy(m[i])),  # type: ignore[index, operator]
    "parameter": lambda m, i: setattr(m[i], "weight", nn.Parameter(m[i].weight.detach().clone())),  # type: ignore[index]
    "parameter of another layer": shared_with,
    "plain tensor": bare,
    "parametrized": lambda m, i: parametrize.register_parametrization(m[i], "weight", Half()),  # type: ignore[index]
    "assign to a layer": lambda m, i: m[i].load_state_dict(weights_of(m[i]), assign=True),  # type: ignore[index]
    "removed": lambda m, i: m.__setitem__(i, nn.Identity()),  # type: ignore[operator]
}
# Changes that leave the parameters what they are.
KEPT: dict[str, Callable[[nn.Module, int], object]] = {
    "load_state_dict": lambda model, _: model.load_state_dict(weights_of(model)),
    "data": lambda m, i: setattr(m[i].weight, "data", m[i].weight.detach().clone()),  # type: ignore[index]
    "conversion": lambda model, _: model.double().float(),
    "checkpoint_wrapper": lambda m, i: m.__setitem__(i, checkpoint_wrapper(m[i])),  # type: ignore[index, operator]
    "a wrapper of one's own": lambda m, i: m.__setitem__(i, nn.Sequential(m[i])),  # type: ignore[index, operator]
    "bias": lambda m, i: setattr(m[i], "bias", nn.Parameter(torch.zeros_like(m[i].bias))),  # type: ignore[index]
    "a layer that is not pruned": lambda m, i: m.__setitem__(1, nn.ReLU()),  # type: ignore[operator]
}


def attached(method: str) -> tuple[nn.Sequential, Pruner]:
    model = mlp()
    if method == "lock":
        with torch.no_grad():
            model[0].weight[:4] = 0
            model[2].weight[:4] = 0
    pattern, target = (Block(1, 1), 0.0) if method == "lock" else (Block(4, 1), 0.5)
    return model, pruner_of(model, custom(pattern, target), *METHODS[method], STEPS)


@examples(60)
@given(
    change=st.sampled_from(sorted({**ALL, **ONE})),
    method=st.sampled_from(sorted(METHODS)),
    when=st.integers(0, STEPS - 2),
    layer=st.sampled_from([0, 2]),
)
def test_a_replaced_weight_is_refused_by_name(change: str, method: str, when: int, layer: int) -> None:
    model, pruner = attached(method)
    train(model, [pruner], range(when))
    held = [weight.parameter.detach().clone() for weight in pruner.weights]
    {**ALL, **ONE}[change](model, layer)
    name = "0.weight (and 1 more)" if change in ALL else f"{layer}.weight"
    match = f"^{re.escape(name)} was replaced in the model after attach.*call attach again"
    for call in (partial(pruner.project, when), partial(pruner.project, when + 1), partial(pruner.observe, when)):
        with pytest.raises(SparsityError, match=match):
            call()
    assert all(torch.equal(old, weight.parameter) for old, weight in zip(held, pruner.weights, strict=True))


@pytest.mark.parametrize("change", sorted(KEPT))
@pytest.mark.parametrize("method", ["magnitude", "snip_momentum", "sr_ste", "lock"])
def test_a_change_that_keeps_the_weights_goes_on(change: str, method: str) -> None:
    model, pruner = attached(method)
    optimizer = adamw(model)
    train(model, [pruner], range(5), optimizer)
    KEPT[change](model, 2)
    train(model, [pruner], range(5, STEPS), optimizer)
    assert pruner.zeros == sum(zeros_of(w) for name, w in model.named_parameters() if w.ndim == 2)


@pytest.mark.parametrize("method", ["magnitude", "snip_momentum", "sr_ste"])
def test_attaching_again_is_the_cure(method: str) -> None:
    model, pruner = attached(method)
    whole, other = attached(method)
    train(whole, [other], range(STEPS), torch.optim.SGD(whole.parameters(), lr=0.05))
    train(model, [pruner], range(5), torch.optim.SGD(model.parameters(), lr=0.05))
    ALL["assign"](model, 0)
    again = pruner_of(model, custom(Block(4, 1), 0.5), *METHODS[method], STEPS)
    again.load_state_dict(pruner.state_dict())
    train(model, [again], range(5, STEPS), torch.optim.SGD(model.parameters(), lr=0.05))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_a_copied_pruner_goes_with_the_copy_of_its_model() -> None:
    model, pruner = attached("magnitude")
    train(model, [pruner], range(3))
    other, copied = copy.deepcopy((model, pruner))
    train(other, [copied], range(3, STEPS))
    assert copied.zeros == sum(zeros_of(other[i].weight) for i in (0, 2)) == 600
    ONE["parameter"](other, 0)
    with pytest.raises(SparsityError, match=r"0\.weight was replaced"):
        copied.project(STEPS)
    pruner.project(3)
