"""Schedules: when updates happen and how sparse they ask to be."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples

from hydraprune.sparsity import Cos, Cube, Cubic, Exp, Linear, OneShot, Schedule, SparsityError, Updates

RAMPS: list[type[Schedule]] = [Schedule, Exp, Linear, Cos, Cube, Cubic]

# Exactly representable or not, the target must come out as it went in.
TARGETS = st.integers(0, 999).map(lambda thousandths: thousandths / 1000)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int | str]:
    """(steps, warmup, cooldown, frequency) that leave room for at least one update."""
    steps = draw(st.integers(0, 300))
    warmup = draw(st.integers(0, steps))
    cooldown = draw(st.integers(0, steps - warmup))
    frequency = draw(st.one_of(st.just("auto"), st.integers(1, 60)))
    return steps, warmup, cooldown, frequency


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Exp, [0, 0.4377, 0.6838, 0.8222, 0.9]),
        (Cos, [0, 0.0685, 0.2636, 0.5556, 0.9]),
        (Cube, [0, 0.0141, 0.1125, 0.3797, 0.9]),
        (Linear, [0, 0.225, 0.45, 0.675, 0.9]),
        (Cubic, [0, 0.5203, 0.7875, 0.8859, 0.9]),
    ],
)
def test_published_values(schedule: type[Schedule], expected: list[float]) -> None:
    updates = schedule(warmup=3, cooldown=2, frequency=5).over(25)
    asked = [updates.sparsity(3 + 5 * i, 0.9) for i in range(5)]
    assert asked == pytest.approx(expected, abs=1e-4)
    assert asked[0] == 0.0
    assert asked[-1] == 0.9


@pytest.mark.parametrize("schedule", RAMPS)
@given(windows(), TARGETS)
@examples(60)
def test_monotone_from_nothing_to_exactly_the_target(
    schedule: type[Schedule], window: tuple[int, int, int, int | str], target: float
) -> None:
    steps, warmup, cooldown, frequency = window
    updates = schedule(warmup, cooldown, frequency).over(steps)
    due = [step for step in range(steps + 1) if updates.due(step)]
    asked = [updates.sparsity(step, target) for step in due]
    assert asked == sorted(asked)
    assert asked[-1] == target
    assert len(asked) == 1 or asked[0] == 0.0
    assert all(0 <= value <= target for value in asked)


@pytest.mark.parametrize("schedule", RAMPS)
@given(TARGETS, TARGETS, st.integers(1, 50))
@examples(40)
def test_monotone_from_a_given_start(schedule: type[Schedule], one: float, other: float, count: int) -> None:
    initial, target = sorted((one, other))
    updates = schedule(frequency=1).over(count)
    asked = [updates.sparsity(step, target, initial) for step in range(count + 1)]
    assert asked[0] == pytest.approx(initial, abs=1e-12)
    assert asked[-1] == target
    assert asked == sorted(asked)


@given(windows())
@examples(150)
def test_updates_are_at_the_steps_of_the_formula(window: tuple[int, int, int, int | str]) -> None:
    steps, warmup, cooldown, frequency = window
    updates = Exp(warmup, cooldown, frequency).over(steps)
    end = steps - cooldown
    stride = max(1, (end - warmup + 1) // 40) if frequency == "auto" else frequency
    due = [step for step in range(-3, steps + 4) if updates.due(step)]
    assert due == list(range(warmup, end + 1, stride))
    assert updates.last == due[-1]
    assert updates.count == len(due) - 1


@given(windows())
@examples(100)
def test_next_due_is_the_first_due_step(window: tuple[int, int, int, int | str]) -> None:
    steps, warmup, cooldown, frequency = window
    updates = Linear(warmup, cooldown, frequency).over(steps)
    for step in range(-2, steps + 3):
        assert updates.next_due(step) == next((s for s in range(step, steps + 3) if updates.due(s)), None)


def test_auto_is_the_window_in_forty_intervals() -> None:
    # The published MRPC recipe: -1 over 229..2292 means every 51 steps.
    updates = Exp(warmup=229, cooldown=458, frequency="auto").over(2750)
    assert (updates.start, updates.frequency, updates.count) == (229, 51, 40)


def test_epochs_become_steps_of_the_training() -> None:
    updates = Exp(warmup="1ep", cooldown="2ep", frequency="0.5ep").over(60, steps_per_epoch=10)
    assert [step for step in range(61) if updates.due(step)] == [10, 15, 20, 25, 30, 35, 40]


@pytest.mark.parametrize("schedule", RAMPS)
def test_a_single_update_asks_for_the_target(schedule: type[Schedule]) -> None:
    updates = schedule(warmup=5, cooldown=5, frequency=3).over(10)
    assert [step for step in range(11) if updates.due(step)] == [5]
    assert updates.sparsity(5, 0.7) == 0.7


@pytest.mark.parametrize("warmup", [0, 4, 10])
def test_one_shot_is_one_update_to_the_target(warmup: int) -> None:
    updates = OneShot(warmup=warmup).over(10)
    assert [step for step in range(12) if updates.due(step)] == [warmup]
    assert updates.last == warmup
    assert updates.sparsity(warmup, 0.9) == 0.9
    assert updates.next_due(warmup + 1) is None


def test_a_ramp_longer_than_the_training_is_refused() -> None:
    with pytest.raises(SparsityError) as error:
        Exp(warmup=6, cooldown="1ep").over(10, steps_per_epoch=5)
    message = str(error.value)
    assert "warmup=6" in message
    assert "cooldown=1ep" in message
    assert "6 + 5" in message
    assert "10" in message


def test_a_one_shot_after_the_training_is_refused() -> None:
    with pytest.raises(SparsityError, match=r"warmup=11.*10"):
        OneShot(warmup=11).over(10)


def test_a_one_shot_that_leaves_less_than_its_cooldown_is_refused() -> None:
    with pytest.raises(SparsityError, match="cooldown=5"):
        OneShot(warmup=8, cooldown=5).over(10)


@pytest.mark.parametrize("frequency", [0, "0", "0ep", "0.01ep"])
def test_a_frequency_of_zero_is_refused(frequency: int | str) -> None:
    with pytest.raises(SparsityError, match=f"frequency={frequency}"):
        Exp(frequency=frequency).over(10, steps_per_epoch=10)


@pytest.mark.parametrize("key", ["warmup", "cooldown", "frequency"])
@pytest.mark.parametrize("value", [-1, "soon", 0.5, "-2ep"])
def test_a_bad_duration_is_named(key: str, value: object) -> None:
    with pytest.raises(SparsityError, match=f"{key}={value}"):
        Exp(**{key: value}).over(10, steps_per_epoch=10)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [*RAMPS, OneShot])
def test_schedules_are_frozen(schedule: type[Schedule]) -> None:
    value = schedule(warmup=1)
    with pytest.raises(FrozenInstanceError):
        value.warmup = 2  # type: ignore[misc]
    assert value == schedule(warmup=1)


# Rounding -----------------------------------------------------------------------------------------


def published_ratio(kind: type[Schedule], target: float, initial: float, update: int, updates: int) -> float:
    """As Neural Compressor 2.6 computes it, operation by operation."""
    if kind is Exp:
        rate = ((1.0 - target) / (1.0 - initial)) ** (1 / updates)
        ratio = 1.0 - (1.0 - initial) * rate**update
    elif kind is Linear:
        ratio = (target - initial) * float(update) / updates + initial
    elif kind is Cos:
        ratio = (target - initial) * (1.0 - math.cos(float(update) / updates * (math.pi / 2))) + initial
    else:
        ratio = (target - initial) * ((float(update) / updates) ** 3) + initial
    return min(target, ratio)


@pytest.mark.parametrize("kind", [Exp, Linear, Cos, Cube])
@examples(300)
@given(
    target=TARGETS,
    initial=st.one_of(st.just(0.0), st.floats(0, 0.999)),
    updates=st.integers(2, 120),
    data=st.data(),
    units=st.integers(1, 10_000_000),
)
def test_a_ramp_truncates_to_the_units_of_the_published_tool(
    kind: type[Schedule], target: float, initial: float, updates: int, data: st.DataObject, units: int
) -> None:
    update = data.draw(st.integers(0, updates - 1))
    initial = min(initial, target)
    asked = kind().over(updates, None)
    asked = Updates(asked.schedule, 0, 1, updates)
    found = asked.sparsity(update, target, initial)
    assert int(units * found) == int(units * published_ratio(kind, target, initial, update, updates))


def test_known_cases_of_rounding() -> None:
    # 0.7 * 10 / 30 and 0.7 * (10 / 30) are one unit of the last place apart; so one truncates to a unit less.
    differ = [
        (percent, update, updates, units)
        for percent in range(1, 100)
        for updates in range(2, 60)
        for update in range(1, updates)
        for units in (100, 300, 700)
        if int(units * (percent / 100 * update / updates)) != int(units * (percent / 100 * (update / updates)))
    ]
    assert len(differ) > 100
    for percent, update, updates, units in differ:
        asked = Updates(Linear(), 0, 1, updates).sparsity(update, percent / 100)
        assert int(units * asked) == int(units * (percent / 100 * update / updates))


@pytest.mark.parametrize("kind", RAMPS)
def test_a_model_that_is_all_zero_at_the_start_stays_so(kind: type[Schedule]) -> None:
    assert [Updates(kind(), 0, 1, 4).sparsity(update, 1.0, 1.0) for update in range(5)] == [1.0] * 5
