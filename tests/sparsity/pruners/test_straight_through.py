"""SR-STE: a sparse forward pass, dense weights behind it, and the refined gradient."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparsity_helpers import PLAIN, adamw, mlp, pruner_of
from torch import Tensor, nn

from hydraprune.sparsity import (
    Exp,
    GroupLasso,
    Hold,
    NofM,
    OneShot,
    Plans,
    Progressive,
    Pruner,
    Schedule,
    SparsityError,
    SrSte,
    attach,
    block,
    holds_pattern,
    n_of_m,
    zeros_of,
)

STEPS = 12


def sr_ste(model: nn.Module, plans: Plans, schedule: Schedule, decay: float = 0.1) -> Pruner:
    return pruner_of(model, plans, SrSte(decay), schedule, STEPS)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 20, generator=generator), torch.randn(8, 40, generator=generator)


def train(model: nn.Module, pruner: Pruner, optimizer: Any, steps: range, after: Any = lambda step: None) -> None:
    for step in steps:
        if step == 0:
            pruner.project(0, optimizer)
            after(0)
        optimizer.zero_grad()
        inputs, targets = batch(step)
        F.mse_loss(model(inputs), targets).backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1, optimizer)
        after(step + 1)


class Through(torch.autograd.Function):
    """The same method written as a function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, decay: float) -> Tensor:
        groups = weight.reshape(-1, 4)
        order = groups.abs().argsort(dim=1, stable=True)
        mask = torch.ones_like(groups).scatter_(1, order[:, :2], 0).reshape(weight.shape)
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        weight, mask = ctx.saved_tensors
        return gradient + ctx.decay * (1 - mask) * weight, None


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_is_the_straight_through_estimator(decay: float) -> None:
    model, other = mlp(), mlp()
    pruner = sr_ste(model, n_of_m(2, 4), Hold(), decay)
    train(model, pruner, torch.optim.SGD(model.parameters(), lr=0.1), range(STEPS))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        inputs, targets = batch(step)
        hidden = torch.tanh(F.linear(inputs, Through.apply(other[0].weight, decay), other[0].bias))
        F.mse_loss(F.linear(hidden, Through.apply(other[2].weight, decay), other[2].bias), targets).backward()
        optimizer.step()
    for ours, theirs in ((model[0], other[0]), (model[2], other[2])):
        assert torch.allclose(ours.weight, Through.apply(theirs.weight, decay), atol=1e-6)
        assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_weights_come_back_and_every_step_is_legal() -> None:
    model, masks = mlp(), []
    pruner = sr_ste(model, n_of_m(2, 4), Hold(cooldown=4))

    def look(step: int) -> None:
        for weight in pruner.weights:
            assert NofM(2, 4).legal(weight.view(weight.parameter.detach() != 0))
            assert zeros_of(weight.parameter.detach()) == weight.parameter.numel() // 2
        masks.append({name: mask.clone() for name, mask in pruner.masks.items()})

    train(model, pruner, adamw(model), range(STEPS), look)
    revived = [any(bool((b[n] & ~a[n]).any()) for n in a) for a, b in pairwise(masks)]
    assert any(revived[:8])
    # The cooldown has fixed masks, and no dense weights.
    assert not any(revived[8:])
    assert pruner.state_dict()["dense"] == {}
    assert holds_pattern(pruner, dict(model.named_parameters())) == (True, 300)


@pytest.mark.parametrize("plans", [n_of_m(2, 4), block(4, 1, 0.6), block(1, "channel", 0.4)], ids=lambda p: p.name)
def test_it_follows_any_schedule_with_any_pattern(plans: Plans) -> None:
    model, zeros = mlp(), []
    pruner = sr_ste(model, plans, Exp(warmup=2, cooldown=1, frequency=3))  # updates at 2, 5, 8, 11
    train(model, pruner, adamw(model), range(STEPS), lambda step: zeros.append(pruner.zeros))
    assert zeros[:5] == [0] * 5
    assert 0 < zeros[5] == zeros[7] < zeros[8] == zeros[10] < zeros[11] or plans.name == "1xchannel"
    units = [units for _, units in pruner.pools]
    assert all(pool.pruned == pool.target for pool in units)
    assert holds_pattern(pruner, dict(model.named_parameters()))[0]


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_resumed_run_ends_the_same(cut: int) -> None:
    def trained(cut: int | None) -> nn.Module:
        model = mlp()
        optimizer = adamw(model)
        pruner = sr_ste(model, n_of_m(2, 4), Hold(cooldown=2))
        train(model, pruner, optimizer, range(cut or STEPS))
        if cut:
            state = pruner.state_dict()
            pruner = sr_ste(model, n_of_m(2, 4), Hold(cooldown=2))
            pruner.load_state_dict(state)
            train(model, pruner, optimizer, range(cut, STEPS))
        return model

    assert all(torch.equal(a, b) for a, b in zip(trained(None).parameters(), trained(cut).parameters(), strict=True))


def test_a_sparse_model_keeps_its_zeros_before_the_window_and_its_sparsity_after() -> None:
    model, zeros = mlp(), []
    model[0].weight.data[:8] = 0  # 40 of 300 blocks of 4x1
    pruner = sr_ste(model, block(4, 1, 0.6), Exp(warmup=4, cooldown=1, frequency=2))
    train(model, pruner, adamw(model), range(STEPS), lambda step: zeros.append(zeros_of(model[0].weight.detach())))
    assert zeros[:4] == [160] * 4
    assert pruner.pools[0][1].pruned == 180


def test_one_shot_is_plain_masking() -> None:
    model = mlp()
    pruner = sr_ste(model, n_of_m(2, 4), OneShot(warmup=3))
    before: list[Tensor] = []
    train(
        model,
        pruner,
        adamw(model),
        range(STEPS),
        lambda step: before.append(pruner.masks.get("0.weight", torch.ones(1))),
    )
    assert all(torch.equal(mask, before[3]) for mask in before[3:])


def test_unsupported_plans_are_refused() -> None:
    for decay in (-1.0, float("inf"), float("nan"), True):
        with pytest.raises(SparsityError, match=f"decay={decay}"):
            SrSte(decay)
    with pytest.raises(SparsityError, match=r"target_sparsity=0\.6"):
        sr_ste(mlp(), n_of_m(2, 4, 0.6), Hold())
    (plan,) = n_of_m(2, 4).parts.values()
    for words, more in (
        ("progressive=none", {"transition": Progressive(4)}),
        ("regularizer=none", {"regularizer": GroupLasso()}),
    ):
        with pytest.raises(SparsityError, match=rf"pruner=sr_ste: .*{words}"):
            attach(mlp(), {"p": plan.completed(SrSte(), Hold(), **more)}, PLAIN, STEPS)  # type: ignore[arg-type]
    model = mlp()
    pruner = sr_ste(model, n_of_m(2, 4), Hold())
    pruner.project(0)
    model[0].weight.requires_grad_(False)
    with pytest.raises(SparsityError, match=r"0\.weight gets no gradient"):
        pruner.observe(0)
