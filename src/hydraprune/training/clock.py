"""Where the wall time of a run goes: training, evaluation, teacher and the rest."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """Wall time of a run in seconds, time before an interruption included.

    On a GPU the teacher's share is the time to launch its kernels, unless the host waits for them.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.measured = {"eval": 0.0, "teacher": 0.0, "other": 0.0}

    def measure(self, share: str) -> _Span:
        """A context manager that adds its duration to `eval`, `teacher` or `other`."""
        return _Span(self, share)

    def move(self, seconds: float, source: str, target: str) -> None:
        """Count seconds that were measured as `source` as `target` instead."""
        self.measured[source] -= seconds
        self.measured[target] += seconds

    def spent(self) -> dict[str, float]:
        """{total, eval, teacher, other} so far; a checkpoint keeps it for `add`."""
        return {"total": time.perf_counter() - self.start, **self.measured}

    def add(self, spent: Mapping[str, float]) -> None:
        """Count the time before an interruption, as `spent` gave it."""
        self.start -= spent["total"]
        self.measured = {share: seconds + spent[share] for share, seconds in self.measured.items()}

    def seconds(self) -> dict[str, float]:
        """{total, train, eval, teacher} for the report; `other` counts towards the total only."""
        total = self.spent()["total"]
        return {
            "total": total,
            "train": total - sum(self.measured.values()),
            "eval": self.measured["eval"],
            "teacher": self.measured["teacher"],
        }


class _Span:
    def __init__(self, clock: Clock, share: str) -> None:
        self.clock, self.share = clock, share

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.measured[self.share] += time.perf_counter() - self.start
