"""Group lasso: the proximal step of its penalty, checked to be the minimiser."""

from __future__ import annotations

import pytest
import torch
from sparsity_helpers import PLAIN, linear, mlp, pruner_of, train
from torch import nn

from hydraprune.sparsity import (
    Exp,
    GroupLasso,
    Magnitude,
    Plans,
    Pruner,
    SparsityError,
    Unregularized,
    attach,
    block,
    n_of_m,
)


def shrunk(model: nn.Module, plans: Plans, strength: float, rate: float) -> None:
    """One step of the penalty and no other."""
    (plan,) = plans.parts.values()
    plan = plan.completed(Magnitude(), Exp(warmup=1, frequency=2), regularizer=GroupLasso(strength))
    (pruner,) = attach(model, {"p": plan}, PLAIN, 9)
    pruner._regularizer.shrink(pruner.structures, torch.optim.SGD(model.parameters(), lr=rate))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "plans",
    [block(4, 1, 0.5), block(1, "channel", 0.5), block("channel", 1, 0.5), block(2, 2, 0.5)],
    ids=lambda p: p.name,
)
def test_it_minimises_the_proximal_problem(plans: Plans) -> None:
    torch.manual_seed(0)
    layer, rate, strength = linear(torch.randn(8, 4)), 0.1, 2.0
    before = layer.weight.detach().clone()
    shrunk(layer, plans, strength, rate)
    after = layer.weight.detach().clone()
    pattern = plans.parts[plans.name].pattern

    def objective(weight: torch.Tensor) -> float:
        norms = type(pattern)(pattern.rows, pattern.cols, "sum").to_cells(weight.unsqueeze(1).double().square()).sqrt()  # type: ignore[union-attr, call-arg]
        size = weight.numel() / norms.numel()
        return float(0.5 * (weight - before).double().square().sum() + rate * strength * size**0.5 * norms.sum())

    best = objective(after)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        nudge = torch.randn(8, 4, generator=generator) * 10.0 ** -(seed % 5)
        assert objective(after + nudge) >= best
    assert best < objective(before)


def test_a_block_by_hand() -> None:
    layer = linear(torch.tensor([[3.0, 0.1], [4.0, 0.1], [0.0, 0.1], [0.0, 0.1]]))
    shrunk(layer, block(4, 1, 0.5), strength=1.0, rate=0.25)
    # ||w|| = 5: factor 1 - 0.25 * 1 * 2 / 5 = 0.9. ||w|| = 0.2: below 0.5, so it goes to zero, and not beyond.
    assert layer.weight[:, 0].tolist() == pytest.approx([2.7, 3.6, 0, 0])
    assert layer.weight[:, 1].tolist() == [0, 0, 0, 0]


def test_convolutions_and_blocks_of_zeros() -> None:
    layer = nn.Conv2d(4, 4, 3, bias=False)
    layer.weight.data[:2] = 0
    before = layer.weight.detach().clone()
    shrunk(layer, block(2, 1, 0.5), strength=1e-3, rate=0.1)
    assert bool((layer.weight[:2] == 0).all())
    assert bool((layer.weight[2:].abs() < before[2:].abs()).all())
    assert not bool(layer.weight.isnan().any())


def with_lasso(model: nn.Module, strength: float | None, **window: int) -> Pruner:
    regularizer = Unregularized() if strength is None else GroupLasso(strength)
    return pruner_of(model, block(4, 1, 0.5), Magnitude(), Exp(**window), regularizer=regularizer)


def test_it_acts_in_the_window_and_each_group_has_its_rate() -> None:
    model = mlp()
    pruner = with_lasso(model, 0.1, warmup=3, cooldown=4, frequency=5)  # updates at 3, which prunes nothing, and 8
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.0}]
    )
    norms = []
    for step in range(12):
        pruner.project(step, optimizer)
        norms.append([float(model[i].weight.detach().norm()) for i in (0, 2)])
    moves = [step for step in range(1, 12) if norms[step][0] != norms[step - 1][0]]
    # After each optimizer step of the window, 3 to 8; the other layer, at a rate of 0, is only pruned.
    assert moves == [4, 5, 6, 7, 8, 9]
    assert [step for step in range(1, 12) if norms[step][1] != norms[step - 1][1]] == [8]


def test_it_draws_units_towards_zero() -> None:
    def smallest(strength: float | None) -> float:
        model = mlp()
        pruner = with_lasso(model, strength, warmup=1, cooldown=2, frequency=9)
        norms: list[float] = []

        def look(step: int) -> None:
            if step == 9:  # before the last update
                norms.extend(model[2].weight.detach().reshape(10, 4, 20).norm(dim=1).flatten().tolist())

        train_with(model, pruner, look)
        return sorted(norms)[len(norms) // 4]

    assert smallest(2.0) < 0.5 * smallest(None)


def train_with(model: nn.Module, pruner: Pruner, look: object) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(12):
        pruner.project(step, optimizer)
        look(step)  # type: ignore[operator]
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(8, 20, generator=generator)).square().mean().backward()
        pruner.observe(step)
        optimizer.step()


def test_unsupported_plans_are_refused() -> None:
    with pytest.raises(SparsityError, match=r"regularizer=group_lasso: shrinks whole blocks, and 2:4 has none"):
        shrunk(mlp(), n_of_m(2, 4, 0.5), 0.1, 0.1)
    pruner = with_lasso(mlp(), 0.1, warmup=1, frequency=2)
    pruner.project(0)
    pruner.project(1)
    with pytest.raises(SparsityError, match="learning rate"):
        pruner.project(2)
    with pytest.raises(SparsityError, match="there is one; use regularizer=none"):
        with_lasso(mlp(), 0.1, warmup=1, frequency=20)
    for strength in (0.0, -1.0, float("inf"), float("nan"), True):
        with pytest.raises(SparsityError, match=f"strength={strength}"):
            GroupLasso(strength)
    train(mlp(), [with_lasso(mlp(), None, warmup=1, frequency=2)], [])
