"""The latest metrics of a run, from the end of its `metrics.jsonl`, which it may be writing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.curves import parsed_line
from hydraprune.results.metric_rows import finite
from hydraprune.utils.files import read_bytes

# Bytes to read: enough to reach the last evaluation of an epoch of several thousand steps.
_TAIL = 64 * 1024


@dataclass(frozen=True)
class Latest:
    """The latest metrics of a run.

    Args:
        step: optimizer steps done.
        every: steps between its last two lines; 0 before the second.
        loss, sparsity: None if not logged yet; NaN if they were not finite.
        scores: metrics of the last evaluation, and the epoch that it followed.
    """

    step: int = 0
    every: int = 0
    loss: float | None = None
    sparsity: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None


def read_latest(directory: Path) -> Latest:
    """The latest metrics of the run in a folder; empty if it has not written any."""
    steps: list[int] = []
    loss = sparsity = epoch = None
    scores: dict[str, float] = {}
    for step, values in _lines_backwards(directory):
        if len(steps) < 2 and step not in steps:
            steps.append(step)
        loss = _number(values, "train/loss") if loss is None else loss
        sparsity = _number(values, "sparsity/global") if sparsity is None else sparsity
        if not scores:
            epoch = _number(values, "epoch")
        scores = scores or {
            key.removeprefix("eval/"): number
            for key in values
            if key.startswith("eval/") and (number := _number(values, key)) is not None
        }
        if len(steps) == 2 and scores and loss is not None and sparsity is not None:
            break
    every = abs(steps[0] - steps[1]) if len(steps) == 2 else 0
    after = int(epoch) if scores and epoch is not None else None
    return Latest(max(steps, default=0), every, loss, sparsity, scores, after)


def _lines_backwards(directory: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(step, values) of every complete line, the last first."""
    try:
        lines = read_bytes(directory / METRICS, _TAIL, end=True).splitlines()
    except OSError:
        return
    for line in reversed(lines):
        if (parsed := parsed_line(line)) is not None:
            yield parsed


def _number(values: Mapping[str, Any], key: str) -> float | None:
    """A number in a line; NaN for null, which is how NaN and inf are written."""
    value = values.get(key, "not there")
    return math.nan if value is None else finite(value)
