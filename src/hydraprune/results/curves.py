"""Metrics of runs over steps, from `metrics.jsonl`, and their band over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.results.json_records import check_plain
from hydraprune.results.metric_rows import finite
from hydraprune.utils.files import read_bytes

NAME = "metrics.jsonl"
# More points on a curve are not visible on a screen.
POINTS = 150

# A line of some hundred bytes for each of a million steps; of longer files, the end.
_MOST_BYTES = 1 << 28
_LAST_STEP = 1 << 53

History = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Band:
    """A metric of one config at one step, over seeds.

    Args:
        low, high: minimum and maximum.
        n: number of seeds that have a value.
    """

    step: int
    mean: float
    low: float
    high: float
    n: int


def read_history(directory: Path) -> History:
    """The metrics that a run has logged so far, (step, value) by name. Incomplete lines are skipped."""
    found: dict[str, list[tuple[int, float]]] = {}
    try:
        lines = read_bytes(directory / NAME, _MOST_BYTES, end=True).splitlines()
    except OSError:
        return found
    for line in lines:
        step, values = parsed_line(line) or (0, {})
        for name, value in values.items():
            if (number := finite(value)) is not None:
                found.setdefault(name, []).append((step, float(number)))
    return found


def parsed_line(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """(step, values by name) of a line of `metrics.jsonl`; None if it is incomplete or damaged."""
    try:
        values = json.loads(line.decode("utf-8"))
        step = values.pop("step")
        # The names alone: a value that is not finite is left out, and the others of its line are not.
        check_plain(list(values))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (step, values) if type(step) is int and 0 <= step <= _LAST_STEP else None


def band(histories: Sequence[History], name: str, points: int = POINTS) -> list[Band]:
    """Mean, minimum and maximum of a metric over runs of one config, step by step.

    If there are more steps than `points`, neighbouring steps are combined: a loss by its mean, any other
    metric by its last value.
    """
    runs = [dict(history[name]) for history in histories if name in history]
    steps = sorted({step for run in runs for step in run})
    width = -(-len(steps) // points) or 1
    combine: Callable[[Sequence[float]], float] = statistics.fmean if "loss" in name else (lambda values: values[-1])
    found = []
    for start in range(0, len(steps), width):
        near = steps[start : start + width]
        values = [combine(some) for run in runs if (some := [run[step] for step in near if step in run])]
        low, high = min(values), max(values)
        # The rounded mean of equal values may differ from them.
        mean = min(max(statistics.fmean(values), low), high)
        found.append(Band(near[-1], mean, low, high, len(values)))
    return found
