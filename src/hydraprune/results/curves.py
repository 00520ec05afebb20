"""`metrics.jsonl` of runs -> curves with a band over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"
# More points than that on a curve cannot be told apart on a screen.
POINTS = 150

History = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Band:
    """The runs of one config at one step.

    Args:
        low, high: least and greatest over seeds.
        n: seeds that have a value there.
    """

    step: int
    mean: float
    low: float
    high: float
    n: int


def read_history(directory: Path) -> History:
    """The values that a run logged, (step, value) by name, as far as it is. Lines cut short are passed over."""
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
            if (number := _finite(value)) is not None:
                found.setdefault(name, []).append((step, number))
    return found


def _finite(value: Any) -> float | None:
    """The value if it is a number that a figure has a place for. True and false are none."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an int beyond all floats
        return None


def band(histories: Sequence[History], name: str, points: int = POINTS) -> list[Band]:
    """Mean, least and greatest over runs of one config, step by step.

    Where there are more steps than `points`, neighbours are drawn together: a loss as their mean, whatever else as
    the last of them.
    """
    runs = [dict(history[name]) for history in histories if name in history]
    steps = sorted({step for run in runs for step in run})
    width = -(-len(steps) // points) or 1
    together: Callable[[Sequence[float]], float] = statistics.fmean if "loss" in name else (lambda values: values[-1])
    found = []
    for start in range(0, len(steps), width):
        near = steps[start : start + width]
        values = [together(there) for run in runs if (there := [run[step] for step in near if step in run])]
        low, high = min(values), max(values)
        # Rounded, the mean of equal values may lie beside them.
        mean = min(max(statistics.fmean(values), low), high)
        found.append(Band(near[-1], mean, low, high, len(values)))
    return found
