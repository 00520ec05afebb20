"""What several tests of the sparsity core need: small models, one-shot pruning, a training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from hypothesis import settings
from torch import Tensor, nn

from hydraprune.sparsity import Family, Magnitude, OneShot, Plans, Pruner, attach

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


def prune_now(model: nn.Module, plans: Plans, family: Family = PLAIN) -> Pruner:
    """Prune `model` once by magnitude, to the plan's full target."""
    (plan,) = plans.parts.values()
    (pruner,) = attach(model, {plans.name: plan.completed(Magnitude(), OneShot())}, family, steps=1)
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
