"""Estimates of running times from the most similar finished runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hydraprune.results.plan_file import Planned
from hydraprune.results.report import RunReport
from hydraprune.results.run_spec import RunSpec

# What two runs have in common, from the most similar to the least.
_LIKENESSES: tuple[Callable[[RunSpec], Hashable], ...] = (
    lambda spec: spec.cell,
    lambda spec: (spec.names, spec.pattern, spec.precision),
    lambda spec: (spec.names, spec.precision),
    lambda spec: spec.names,
)


class Estimates:
    """Running times of runs, estimated from those that have finished.

    Args:
        finished: runs with their times.
    """

    def __init__(self, finished: Iterable[RunReport]) -> None:
        # (likeness, whether a run has no steps, what it has in common) -> seconds per step, or of the whole run
        self._rates: dict[tuple[int, bool, Hashable], list[float]] = {}
        self._medians: dict[tuple[int, bool, Hashable], float] = {}
        for run in finished:
            if run.steps is not None and (total := run.seconds.get("total")):
                for key in _keys(run.spec, run.steps):
                    self._rates.setdefault(key, []).append(total / (run.steps or 1))

    def seconds(self, job: Planned) -> float | None:
        """Estimated seconds of a run: its steps x the median seconds per step of the most similar finished runs.

        For runs without steps, which prune without training, the median seconds of such runs.

        Returns:
            None if no finished run is similar.
        """
        if job.steps is None:
            return None
        for key in _keys(job.spec, job.steps):
            if key in self._rates:
                if key not in self._medians:
                    self._medians[key] = statistics.median(self._rates[key])
                return self._medians[key] * (job.steps or 1)
        return None


def _keys(spec: RunSpec, steps: int) -> Iterator[tuple[int, bool, Hashable]]:
    for number, likeness in enumerate(_LIKENESSES):
        yield number, steps == 0, likeness(spec)


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
