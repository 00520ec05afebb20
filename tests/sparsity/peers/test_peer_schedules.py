"""What other pruning libraries assert of schedules, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from sparsity_helpers import mlp, pruner_of, train
from torch import nn

from hydraprune.sparsity import (
    Cos,
    Cube,
    Cubic,
    Exp,
    Fisher,
    Hold,
    Linear,
    Magnitude,
    Method,
    Movement,
    OneShot,
    Schedule,
    Selection,
    Snip,
    SnipMomentum,
    SparsityError,
    Threshold,
    Updates,
    block,
    layer_sparsity,
)

KINDS: list[Callable[..., Schedule]] = [Hold, Cubic, Linear, Exp]


def asked(updates: Updates, target: float, initial: float = 0.0) -> list[float]:
    """The sparsity of every update."""
    steps = range(updates.start, updates.last + 1)
    return [updates.sparsity(step, target, initial) for step in steps if updates.due(step)]


def over_ten(schedule: Callable[..., Schedule]) -> Updates:
    """Updates at 0, 1, ..., 10."""
    return schedule(frequency=1).over(10)


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testBeginStepGreaterThanEqualsZero.
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_is_not_negative(kind: Callable[..., Schedule]) -> None:
    for warmup in (-1, -5, "-1ep"):
        with pytest.raises(SparsityError, match="warmup"):
            kind(warmup=warmup).over(1000, 10)
    assert [kind(warmup=warmup).over(1000).start for warmup in (0, 1, 100)] == [0, 1, 100]


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testEndStepGreaterThanEqualsZero and
# testEndStepGreaterThanEqualsBeginStep. Our end is the steps of the training less the cooldown.
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_is_not_before_the_first(kind: Callable[..., Schedule]) -> None:
    with pytest.raises(SparsityError, match="cooldown"):
        kind(cooldown=-5).over(100)
    with pytest.raises(SparsityError, match="warmup"):
        kind(warmup=10).over(5)
    with pytest.raises(SparsityError, match="warmup"):
        kind(warmup=10, cooldown=95).over(100)
    assert kind(warmup=10).over(10).last == 10
    assert kind(warmup=10, frequency=5).over(20).last == 20
    assert [kind(frequency=1).over(steps).last for steps in (0, 1, 100)] == [0, 1, 100]


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testFrequencyIsPositive.
@pytest.mark.parametrize("kind", KINDS)
def test_the_frequency_is_positive(kind: Callable[..., Schedule]) -> None:
    for frequency in (0, -1, -5):
        with pytest.raises(SparsityError, match="frequency"):
            kind(warmup=10, frequency=frequency).over(1000)
    assert [kind(warmup=10, frequency=frequency).over(1000).frequency for frequency in (1, 10)] == [1, 10]


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testSparsityValueIsValid (of the
# target and of where the schedule begins).
@pytest.mark.parametrize("sparsity", [-0.001, -1.0, -10.0, 1.0, 10.0])
def test_sparsities_out_of_range_are_refused(sparsity: float) -> None:
    with pytest.raises(SparsityError, match="target_sparsity"):
        Selection(sparsity)
    with pytest.raises(SparsityError, match="initial_sparsity"):
        Selection(0.8, initial_sparsity=sparsity)


@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.5, 0.99])
def test_sparsities_in_range_are_taken(sparsity: float) -> None:
    assert Selection(sparsity).target_sparsity == sparsity
    assert Selection(0.99, initial_sparsity=sparsity).initial_sparsity == sparsity


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testPrunesOnlyInBeginEndStepRange.
@pytest.mark.parametrize("kind", KINDS)
def test_updates_lie_within_the_window(kind: Callable[..., Schedule]) -> None:
    updates = kind(warmup=100, cooldown=50, frequency=1).over(250)
    assert [updates.due(step) for step in (90, 99)] == [False, False]
    assert [updates.due(step) for step in (100, 110, 200)] == [True, True, True]
    assert [updates.due(step) for step in (201, 210)] == [False, False]


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testOnlyPrunesAtValidFrequencySteps.
@pytest.mark.parametrize("kind", KINDS)
def test_updates_keep_their_distance(kind: Callable[..., Schedule]) -> None:
    updates = kind(warmup=100, cooldown=50, frequency=10).over(250)
    assert [step for step in range(95, 125) if updates.due(step)] == [100, 110, 120]


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testPrunesWithConstantSparsity and
# testPrunesForeverIfEndStepIsNegativeOne. Without an end, ours prunes to the end of the training.
def test_a_constant_sparsity_is_the_same_at_every_update() -> None:
    updates = Hold(warmup=100, cooldown=50, frequency=10).over(250)
    assert set(asked(updates, 0.5)) == {0.5}
    endless = Hold(frequency=10).over(10**8)
    assert endless.due(10_000)
    assert endless.due(10**8)
    assert endless.sparsity(10**8, 0.5) == 0.5


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testPolynomialDecay_PrunesCorrectly
# (0.2 to 0.8 by the third power, over ten steps, every second one).
def test_values_of_the_polynomial() -> None:
    updates = Cubic(warmup=100, cooldown=0, frequency=2).over(110)
    values = [updates.sparsity(step, 0.8, 0.2) for step in (100, 102, 110)]
    assert values == pytest.approx([0.2, 0.4928, 0.8])
    assert Cubic().curve(0.5, 0.2, 0.8) == pytest.approx(0.725)


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_schedule_test.py: testSerializeDeserialize.
@pytest.mark.parametrize("kind", [Schedule, Hold, Linear, Exp, Cos, Cube, Cubic, OneShot, Threshold])
def test_a_schedule_is_its_fields(kind: type[Schedule]) -> None:
    schedule = kind(warmup=10, cooldown="2ep", frequency=10)
    assert kind(**asdict(schedule)) == schedule


# torch.ao.pruning, pytorch d4c7181, test_scheduler.py: TestCubicScheduler.test_step (two targets from 0.1 on, nothing
# before the first step, about 0.3 and 0.2 one step later, the targets after the last).
def test_two_targets_by_the_cubic_schedule() -> None:
    updates = Cubic(warmup=3, frequency=1).over(13)
    assert not any(updates.due(step) for step in range(3))
    for target, second in ((0.8, 0.3), (0.4, 0.2)):
        values = asked(updates, target, 0.1)
        assert values[0] == pytest.approx(0.1)
        assert round(values[1], 1) == second
        assert values[-1] == target
        assert len(values) == 11


# torch.ao.pruning, pytorch d4c7181, test_scheduler.py: test_lambda_scheduler (a function of the epoch; it may ask for
# 5.0). Ours is a subclass, and never asks for more than the target.
def test_a_schedule_of_ones_own_stops_at_the_target() -> None:
    class TenTimes(Schedule):
        def curve(self, x: float, initial: float, target: float) -> float:
            return 10 * x

    assert asked(over_ten(TenTimes), 0.5) == [0.0] + [0.5] * 10


# torch.ao.pruning, pytorch d4c7181, test_scheduler.py: test_order_of_steps (a warning where the scheduler steps before
# the sparsifier). The order that matters to ours is that of the optimizer and the mask: the other one is refused.
def test_a_mask_before_the_optimizer_is_refused() -> None:
    layer = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = pruner_of(layer, block(1, 1, 0.5), Magnitude(), Hold(frequency=1), 10)

    def steps() -> None:
        pruner.project(0)
        for step in range(4):
            layer(torch.ones(2, 8)).sum().backward()
            pruner.observe(step)
            pruner.project(step + 1)
            optimizer.step()

    with pytest.raises(SparsityError, match=r"after optimizer\.step"):
        steps()


# llm-compressor c6a26f3 (not merged by 2026-08-22), modifiers/pruning/test_helpers.py:
# test_polynomial_decay_is_monotonic_within_bounds (for even and odd exponents); ours, each schedule and an exponent of
# each kind.
@pytest.mark.parametrize("kind", [Linear, Exp, Cos, Cube, Cubic, 2, 3, 4])
def test_sparsity_never_falls_nor_leaves_its_bounds(kind: object) -> None:
    class Power(Schedule):
        def progress(self, x: float) -> float:
            return 1 - (1 - x) ** kind  # type: ignore[operator, no-any-return]

    values = asked(over_ten(Power if isinstance(kind, int) else kind), 0.9)  # type: ignore[arg-type]
    assert values[0] == 0.0
    assert values[-1] == 0.9
    assert values == sorted(values)


# llm-compressor c6a26f3 (not merged by 2026-08-22), modifiers/pruning/test_helpers.py: test_cubic_scheduler_unchanged
# (half-way to 0.9).
def test_the_cubic_schedule_half_way() -> None:
    values = asked(over_ten(Cubic), 0.9)
    assert [values[0], values[5], values[10]] == pytest.approx([0.0, 0.7875, 0.9])


# SparseML 1569f1d of 2022-03-20, test_modifier_pruning_magnitude.py: TestGMPruningModifier.test_lifecycle (nothing
# before the start, the initial sparsity at it, more at each update, the target at the last, and no update after it).
@pytest.mark.parametrize(
    ("schedule", "initial", "target"),
    [(Linear, 0.05, 0.95), (Cubic, 0.05, 0.95), (Cubic, 0.8, 0.9), (Exp, 0.05, 0.95), (Cos, 0.1, 0.6)],
)
def test_the_life_of_a_gradual_pruner(schedule: Callable[..., Schedule], initial: float, target: float) -> None:
    model = mlp()
    plans = block(1, 1, target, initial_sparsity=initial)
    pruner = pruner_of(model, plans, Magnitude(), schedule(warmup=3, cooldown=5, frequency=2), 18)
    counts: list[int] = []
    train(model, [pruner], range(18), after=lambda step: counts.append(sum(x.zeros for x in layer_sparsity(model))))
    assert counts[:3] == [0, 0, 0]
    assert counts[3] == round(1200 * initial)
    at_updates = counts[3:14:2]
    assert at_updates == sorted(set(at_updates))
    assert set(counts[13:]) == {round(1200 * target)}


# SparseML 1569f1d of 2022-03-20, test_modifier_pruning_magnitude.py: the same with init_sparsity taken from the
# weights.
def test_a_schedule_begins_at_the_sparsity_of_the_weights() -> None:
    model = mlp()
    for layer in (model[0], model[2]):
        layer.weight.data[:, ::4] = 0.0
    pruner = pruner_of(model, block(1, 1, 0.85), Magnitude(), Linear(warmup=1, frequency=1), 11)
    counts: list[int] = []
    train(model, [pruner], range(11), after=lambda step: counts.append(pruner.zeros))
    assert counts[:2] == [300, 300]
    assert counts[-1] == 1020
    assert counts[6] == 660


# SparseML 04a5284 of 2022-08-18 and 55a7881 of 2022-03-14, test_modifier_pruning_obs.py and
# test_modifier_pruning_movement.py: the same life with other scores. NNI 6ea069c of 2023-05-23,
# compression/pruning/test_pruner.py: test_mvp_pruner (a hundred steps, ten of them before and ten after) and
# test_scheduled_pruner with the taylor pruner.
@pytest.mark.parametrize("method", [Fisher(), Movement(), Snip(), SnipMomentum(), Magnitude()])
def test_every_score_follows_the_schedule(method: Method) -> None:
    model = mlp()
    pruner = pruner_of(model, block(1, 1, 0.75), method, Cubic(warmup=5, cooldown=5, frequency=5), 30)
    counts: list[int] = []
    train(model, [pruner], range(30), after=lambda step: counts.append(pruner.zeros))
    assert counts[:6] == [0] * 6
    assert counts == sorted(counts)
    assert set(counts[25:]) == {900}
    assert pruner.at_target


# NNI 6ea069c of 2023-05-23, compression/pruning/test_pruner.py: test_scheduled_pruner (the linear and the AGP pruner
# reach 0.75 of each layer in ten times).
@pytest.mark.parametrize("schedule", [Linear, Cubic])
def test_ten_times_to_three_quarters(schedule: Callable[..., Schedule]) -> None:
    model = mlp()
    plans = block(1, "channel", 0.75, "local")
    pruner = pruner_of(model, plans, Magnitude(), schedule(frequency=2), 20)
    train(model, [pruner], range(20))
    assert pruner.updates.count == 10
    assert [int((mask.any(1)).sum()) for mask in pruner.masks.values()] == [5, 10]
