"""Metrics of runs over steps, from `metrics.jsonl`, and their band over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydraprune.results.metric_rows import finite

NAME = "metrics.jsonl"
# More points on a curve are not visible on a screen.
POINTS = 150

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
        lines = (directory / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if type(step) is not int:
            continue
        for name, value in values.items():
            if (number := finite(value)) is not None:
                found.setdefault(name, []).append((step, float(number)))
    return found


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
