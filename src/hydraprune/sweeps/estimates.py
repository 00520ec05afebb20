"""Estimates of running times from the most similar finished runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hydraprune.results.plan_file import Planned
from hydraprune.results.report import RunReport

# From the most similar to the least.
_SIMILARITIES: tuple[Callable[[RunReport, Planned], bool], ...] = (
    lambda run, job: run.spec.cell == job.spec.cell,
    lambda run, job: _names(run) == _names(job) and _setting(run) == _setting(job),
    lambda run, job: _names(run) == _names(job) and run.spec.precision == job.spec.precision,
    lambda run, job: _names(run) == _names(job),
)


def _names(run: RunReport | Planned) -> tuple[str, str, str]:
    return run.spec.names


def _setting(run: RunReport | Planned) -> tuple[str, str | None]:
    return run.spec.pattern, run.spec.precision


def seconds_of(job: Planned, finished: Iterable[RunReport]) -> float | None:
    """Estimated seconds of a run: its steps x the median seconds per step of the most similar finished runs.

    For runs without steps, which prune without training, the median seconds of such runs.

    Returns:
        None if no finished run is similar.
    """
    if job.steps is None:
        return None
    timed = [run for run in finished if run.steps is not None and run.seconds.get("total")]
    runs = [run for run in timed if (run.steps == 0) == (job.steps == 0)]
    for similar in _SIMILARITIES:
        if rates := [run.seconds["total"] / (run.steps or 1) for run in runs if similar(run, job)]:
            return statistics.median(rates) * (job.steps or 1)
    return None


@dataclass(frozen=True)
class TimeLeft:
    """Time until several runs are done.

    Args:
        seconds: of the runs that can be estimated.
        unknown: number of runs that cannot.
    """

    seconds: float
    unknown: int

    def __str__(self) -> str:
        if not self.seconds:
            return "unknown" if self.unknown else "0 s"
        more = f", and {self.unknown} more of unknown length" if self.unknown else ""
        return f"about {duration(self.seconds)}{more}"


def time_left(estimates: Sequence[float | None], workers: int) -> TimeLeft:
    """Time until runs of these lengths (seconds; None if unknown) are done, `workers` at a time."""
    known = [value for value in estimates if value is not None]
    at_once = max(1, min(workers, len(estimates)))
    return TimeLeft(max([sum(known) / at_once, *known], default=0.0), len(estimates) - len(known))


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3 h 05 min`; `unknown` for a number that is not finite."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
