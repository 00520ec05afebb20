"""Shared by tests of the sparsity core: small models, plans and pruners for them, a training loop."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor, nn

from hydraprune.sparsity import (
    AtOnce,
    Family,
    Magnitude,
    Method,
    OneShot,
    Plan,
    Plans,
    Progressive,
    Pruner,
    Regularizer,
    Schedule,
    attach,
)

PLAIN = Family("plain")


def examples(count: int) -> settings:
    """Hypothesis settings without a time limit: the machine may be busy."""
    return settings(deadline=None, max_examples=count)


def mask_of(rows: Sequence[object]) -> Tensor:
    """A mask written by hand: 1 = keep, 0 = prune."""
    return torch.tensor(rows, dtype=torch.bool)


def linear(weight: Tensor) -> nn.Linear:
    """A linear layer without a bias that holds `weight`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone().float()
    return layer


def holding(layer: nn.Module, weight: Tensor) -> nn.Module:
    """`layer` with `weight` for its weight."""
    assert layer.weight.shape == weight.shape
    layer.weight.data = weight.clone().float()
    return layer


def plan_of(
    plans: Plans,
    method: Method,
    schedule: Schedule,
    transition: AtOnce | Progressive | None = None,
    regularizer: Regularizer | None = None,
) -> Plan:
    """The only plan of `plans`, completed."""
    (plan,) = plans.parts.values()
    return plan.completed(method, schedule, transition, regularizer)


def pruner_of(
    model: nn.Module,
    plans: Plans,
    method: Method,
    schedule: Schedule,
    steps: int = 12,
    transition: AtOnce | Progressive | None = None,
    regularizer: Regularizer | None = None,
    family: Family = PLAIN,
) -> Pruner:
    """The pruner of the only plan of `plans`, in a training of `steps` steps."""
    plan = plan_of(plans, method, schedule, transition, regularizer)
    (pruner,) = attach(model, {plans.name: plan}, family, steps)
    return pruner


def through_a_file(state: Any) -> Any:
    """What is loaded of a saved state."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def prune_now(model: nn.Module, plans: Plans, family: Family = PLAIN) -> Pruner:
    """Prune `model` once by magnitude, to the plan's full target."""
    pruner = pruner_of(model, plans, Magnitude(), OneShot(), 1, family=family)
    assert pruner.project(0)
    return pruner


def mlp(seed: int = 0) -> nn.Sequential:
    """Two layers of 20 x 20 and 40 x 20: 100 and 200 blocks of 4x1 or 2:4 groups."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 40))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW with a weight decay and a rate that move every weight."""
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def train(
    model: nn.Module,
    pruners: Sequence[Pruner],
    steps: Iterable[int],
    optimizer: torch.optim.Optimizer | None = None,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """The loop of the pruner's docstring; the batch of a step depends on its number only."""
    optimizer = optimizer or adamw(model)
    for step in steps:
        if step == 0:
            for pruner in pruners:
                pruner.project(0)
            after(0)
        generator = torch.Generator().manual_seed(1000 + step)
        inputs = torch.randn(8, 20, generator=generator)
        targets = torch.randn(8, 40, generator=generator)
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        for pruner in pruners:
            pruner.observe(step)
        optimizer.step()
        for pruner in pruners:
            pruner.project(step + 1)
        after(step + 1)
