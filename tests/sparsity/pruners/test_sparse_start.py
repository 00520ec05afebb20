"""A model that is sparse already: its zeros are kept, or the schedule continues from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparsity_helpers import PLAIN, mlp, train
from torch import nn

from hydraprune.sparsity import (
    Block,
    Cos,
    Criterion,
    Cube,
    Cubic,
    Exp,
    Gradient,
    Heads,
    Hold,
    Keep,
    Linear,
    Magnitude,
    NofM,
    OneShot,
    Pattern,
    Plans,
    Pruner,
    Schedule,
    SnipMomentum,
    SparsityError,
    Unscored,
    attach,
    block,
    holds_pattern,
    n_of_m,
    zeros_of,
)
from hydraprune.sparsity.plans import lock

STEPS = 14


def sparse(share: float = 0.3, pattern: Pattern | None = None, seed: int = 0) -> nn.Sequential:
    """The two layers, some units of each at zero."""
    model = mlp(seed)
    pattern = pattern or Block(1, 1)
    for layer in (model[0], model[2]):
        view = layer.weight.data.unsqueeze(1)
        units = pattern.units((view.shape[0], 1, view.shape[2]))
        gone = torch.zeros(units, dtype=torch.bool)
        gone[torch.randperm(units)[: int(units * share)]] = True
        keep = pattern.mask(gone, pattern.to_cells(torch.rand(view.shape)), (view.shape[0], 1, view.shape[2]))
        layer.weight.data *= keep.squeeze(1)
    return model


def locked(model: nn.Module) -> Pruner:
    (plan,) = lock().parts.values()
    (pruner,) = attach(model, {"lock": plan.completed(Unscored(), OneShot())}, PLAIN, STEPS)
    return pruner


def weights(model: nn.Sequential) -> list[torch.Tensor]:
    return [model[0].weight.detach(), model[2].weight.detach()]


def test_a_lock_neither_loses_nor_adds_zeros() -> None:
    # Zeros scattered at random: nearly every block of 4x1 has some, and few are zero throughout.
    model = sparse(0.6)
    before = [weight == 0 for weight in weights(model)]
    pruner = locked(model)
    after = []
    train(model, [pruner], range(STEPS), after=lambda step: after.append([weight == 0 for weight in weights(model)]))
    assert all(torch.equal(a, b) for step in after for a, b in zip(step, before, strict=True))
    assert pruner.zeros == sum(zeros_of(weight) for weight in weights(model)) == 240 + 480
    assert pruner.target_sparsity == 0.6
    assert holds_pattern(pruner, dict(model.named_parameters())) == (True, 720)
    with torch.no_grad():
        model[0].weight[before[0]] = 1.0
    assert holds_pattern(pruner, dict(model.named_parameters()))[0] is False


@pytest.mark.parametrize("pattern", [NofM(2, 4), NofM(1, 4), Block(4, 1)], ids=lambda p: p.name)
def test_a_lock_keeps_what_another_pattern_made(pattern: Pattern) -> None:
    # The published lock zeroes whole groups of 2:4 and sees none in 1:4.
    model = sparse(1.0 if isinstance(pattern, NofM) else 0.5, pattern)
    before = [weight == 0 for weight in weights(model)]
    train(model, [locked(model)], range(STEPS))
    assert all(torch.equal(a, weight == 0) for a, weight in zip(before, weights(model), strict=True))


def test_a_lock_resumes() -> None:
    model = sparse(0.6)
    pruner = locked(model)
    train(model, [pruner], range(3))
    other = mlp(5)
    other.load_state_dict(model.state_dict())
    again = locked(other)
    again.load_state_dict(pruner.state_dict())
    train(other, [again], range(3, STEPS))
    assert again.zeros == sum(zeros_of(weight) for weight in weights(other)) == 720


def test_a_lock_needs_zeros_and_ignores_the_shared_criterion() -> None:
    with pytest.raises(SparsityError, match=r"no zeros to keep.*dense\.source"):
        locked(mlp()).project(0)
    (plan,) = lock().parts.values()
    assert isinstance(plan.criterion, Keep)
    # As a part of a mixed pattern it takes no part in what the others share.
    assert plan.completed(SnipMomentum(), OneShot()).criterion == Keep()


RAMP = Linear(warmup=2, cooldown=0, frequency=4)  # updates at 2, 6, 10, 14


def ramped(model: nn.Module, plans: Plans, criterion: Criterion) -> Pruner:
    (plan,) = plans.parts.values()
    (pruner,) = attach(model, {plans.name: plan.completed(criterion, RAMP)}, PLAIN, STEPS)
    return pruner


@pytest.mark.parametrize("scope", ["global", "local", "erk"])
@pytest.mark.parametrize("pattern", [Block(4, 1), NofM(2, 4), Block(1, 1)], ids=lambda p: p.name)
@pytest.mark.parametrize("criterion", [Magnitude(), SnipMomentum()], ids=lambda c: type(c).__name__)
def test_a_schedule_continues_from_the_sparsity_of_the_model(
    criterion: Criterion, pattern: Pattern, scope: Any
) -> None:
    share = 0.25
    model = sparse(share, pattern)
    gone = [weight == 0 for weight in weights(model)]
    plans = (
        n_of_m(pattern.keep, pattern.of, 0.4, scope)
        if isinstance(pattern, NofM)
        else block(pattern.rows, pattern.cols, 0.8, scope)  # type: ignore[attr-defined]
    )
    pruner, zeros = ramped(model, plans, criterion), []

    def look(step: int) -> None:
        zeros.append(sum(zeros_of(weight) for weight in weights(model)))
        assert all(not bool((weight[old] != 0).any()) for old, weight in zip(gone, weights(model), strict=True))

    train(model, [pruner], range(STEPS), after=look)
    start, end = zeros[0], sum(units.target * pruner.structures[0].unit_zeros for _, units in pruner.pools)
    # From the first step on what was zero is held; the first update asks for just that.
    assert zeros[:6] == [start] * 6
    assert zeros[-1] == end
    assert zeros[6] == pytest.approx(start + (end - start) / 3, abs=4 * len(pruner.pools))
    assert zeros[10] == pytest.approx(start + (end - start) * 2 / 3, abs=4 * len(pruner.pools))


def test_initial_sparsity_begins_the_schedule() -> None:
    model, zeros = mlp(), []
    pruner = ramped(model, block(4, 1, 0.8, initial_sparsity=0.5), SnipMomentum())
    train(model, [pruner], range(STEPS), after=lambda step: zeros.append(pruner.zeros / pruner.total))
    assert [zeros[step] for step in (1, 2, 6, 10, 14)] == pytest.approx([0, 0.5, 0.6, 0.7, 0.8], abs=0.004)


@pytest.mark.parametrize("ramp", [Exp, Linear, Cos, Cube, Cubic], ids=lambda r: r.__name__)
@pytest.mark.parametrize("scope", ["global", "local", "erk"])
def test_every_ramp_begins_at_its_initial_sparsity(ramp: type[Schedule], scope: Any) -> None:
    for percent in range(5, 80, 5):
        (plan,) = block(4, 1, 0.8, scope, initial_sparsity=percent / 100).parts.values()
        (pruner,) = attach(mlp(), {"p": plan.completed(Magnitude(), ramp(frequency=4))}, PLAIN, STEPS)
        pruner.project(0)
        found = sum(units.pruned for _, units in pruner.pools)
        assert abs(found - 3 * percent) <= len(pruner.pools), percent


def test_initial_sparsity_zero_gives_up_the_zeros() -> None:
    model = sparse(0.5, Block(4, 1))
    pruner = ramped(model, block(4, 1, 0.6, initial_sparsity=0), SnipMomentum())
    zeros: list[int] = []
    train(model, [pruner], range(4), after=lambda step: zeros.append(pruner.zeros))
    assert zeros == [0] * 5
    assert sum(zeros_of(weight) for weight in weights(model)) < 20


def test_a_target_below_the_sparsity_of_the_model_is_refused() -> None:
    pruner = ramped(sparse(0.5, Block(4, 1)), block(4, 1, 0.4), SnipMomentum())
    with pytest.raises(SparsityError) as error:
        pruner.project(0)
    words = ["target_sparsity=0.4", "the model has 150 of 300", "120", "pattern=lock", "pattern.initial_sparsity=0"]
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("initial", [-0.1, 0.6, True, "half"])
def test_an_initial_sparsity_out_of_range_is_refused(initial: Any) -> None:
    with pytest.raises(SparsityError, match=f"initial_sparsity={initial}"):
        block(4, 1, 0.5, initial_sparsity=initial)


def test_a_dense_model_starts_at_nothing() -> None:
    one, two = mlp(), mlp()
    for model, initial in ((one, None), (two, 0.0)):
        train(model, [ramped(model, block(4, 1, 0.5, initial_sparsity=initial), Gradient())], range(STEPS))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not isinstance(block(4, 1, 0.5).parts["4x1"].pattern, Heads)


def test_zeros_beyond_a_bound_are_refused_and_not_lost() -> None:
    model = mlp()
    model[0].weight.data[:16] = 0  # 80 of its 100 blocks
    for bounds, words in (
        ({"cap": 0.7}, r"cap=0\.7: 0\.weight has 80 units at zero.*more than the 70"),
        ({"floor": 0.4}, r"floor=0\.4: layers have 40 units.*leaves 30"),
    ):
        pruner = ramped(model, block(4, 1, 0.5, **bounds), SnipMomentum())  # type: ignore[arg-type]
        with pytest.raises(SparsityError, match=words):
            pruner.project(0)


def test_a_sparse_model_needs_no_warm_up() -> None:
    model = sparse(0.25, Block(4, 1))
    (plan,) = block(4, 1, 0.8).parts.values()
    (pruner,) = attach(model, {"p": plan.completed(SnipMomentum(), Linear(frequency=4))}, PLAIN, STEPS)
    zeros: list[int] = []
    train(model, [pruner], range(STEPS), after=lambda step: zeros.append(pruner.zeros))
    assert zeros[:4] == [300] * 4
    assert pruner.pools[0][1].pruned == 240


@pytest.mark.parametrize("schedule", [OneShot(warmup=2), Hold(warmup=2)], ids=lambda s: type(s).__name__)
def test_initial_sparsity_needs_a_ramp(schedule: Schedule) -> None:
    (plan,) = block(4, 1, 0.8, initial_sparsity=0.3).parts.values()
    with pytest.raises(SparsityError, match=r"initial_sparsity=0\.3: the schedule has no ramp"):
        attach(mlp(), {"p": plan.completed(SnipMomentum(), schedule)}, PLAIN, STEPS)
