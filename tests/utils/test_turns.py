"""Alternatives that are measured in turns."""

from __future__ import annotations

import pytest

from hydraprune.utils import turns
from hydraprune.utils.turns import least_seconds


def test_sides_take_turns_of_two_calls() -> None:
    calls: list[str] = []
    found = least_seconds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, lambda side: calls.append(f"prepare {side}")
    )
    assert calls == ["prepare a", "a", "a", "prepare b", "b", "b"] * 7
    assert all(seconds >= 0 for seconds in found.values())
    assert list(found) == ["a", "b"]


def test_slow_sides_have_fewer_rounds() -> None:
    calls: list[None] = []
    least_seconds({"a": lambda: calls.append(None)}, within=-1.0)
    assert len(calls) == 2 * 3


def test_the_least_of_the_second_calls_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, durations = 0.0, iter([9.0, 5.0, 1.0, 3.0, 1.0] + [4.0] * 9)

    def call() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now)
    assert least_seconds({"a": call}) == {"a": 3.0}
