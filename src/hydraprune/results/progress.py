"""How far is a sweep? Read from its jobs' folders, by anyone, at any time."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydraprune.results.estimates import TimeLeft, seconds_of, time_left
from hydraprune.results.planned import Plan, Planned
from hydraprune.results.report import NAME, RunReport

_TAIL = 4096


@dataclass(frozen=True)
class Running:
    """A run that is under way.

    Args:
        step: optimizer steps done.
        seconds: since it began, a dense ancestor trained on the way included.
    """

    job: Planned
    step: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Seconds per step so far; None before the first line of metrics."""
        return self.seconds / self.step if self.step else None

    @property
    def share(self) -> float:
        """How much of it is done."""
        return min(1.0, self.step / self.job.steps) if self.job.steps else 0.0


@dataclass(frozen=True)
class Progress:
    """A sweep at one moment.

    Args:
        done: with their reports.
        failed: with the reason.
        running: dense ancestors included.
        waiting: jobs not begun; those cut in an earlier sweep among them.
    """

    done: tuple[tuple[Planned, RunReport], ...]
    failed: tuple[tuple[Planned, str], ...]
    running: tuple[Running, ...]
    waiting: tuple[Planned, ...]
    left: TimeLeft


def progress(plan: Plan, since: float, evidence: Sequence[RunReport] = ()) -> Progress:
    """How far the jobs of `plan` are.

    Args:
        since: the time (seconds since the epoch) at which the sweep began; what began before is not running.
        evidence: finished runs to estimate by, besides those of the plan.
    """
    done, failed, running, waiting = [], [], [], []
    missing: list[Planned] = []
    for job in plan.jobs:
        report = job.report()
        recent = report is not None and _time(job) >= since
        if job.refused is not None:
            failed.append((job, job.refused))
        elif (ended := job.finished()) is not None:
            done.append((job, ended))
        elif report is not None and report.status == "failed" and recent:
            failed.append((job, report.error or "failed"))
        elif report is not None and report.status == "started" and recent:
            running.append(_running(job))
        else:
            waiting.append(job)
    for job in plan.ancestors:
        report = job.report()
        if report is not None and report.status == "started" and _time(job) >= since:
            running.append(_running(job))
        elif report is None or report.status == "started":
            missing.append(job)
    known = [*evidence, *(report for _, report in done), *(r for j in plan.ancestors if (r := j.finished()))]
    rates = [run.rate for run in running if run.rate is not None]

    def expected(job: Planned) -> float | None:
        found = seconds_of(job, known)
        return statistics.median(rates) * job.steps if found is None and rates and job.steps else found

    rest = [None if (whole := expected(run.job)) is None else whole * (1 - run.share) for run in running]
    rest += [expected(job) for job in [*waiting, *missing]]
    return Progress(tuple(done), tuple(failed), tuple(running), tuple(waiting), time_left(rest, plan.workers))


def _running(job: Planned) -> Running:
    return Running(job, _last_step(job.directory), max(0.0, time.time() - _time(job)))


def _time(job: Planned) -> float:
    """When the job's report was last written; 0 if it is not there."""
    for place in (job.directory, job.refusal):
        if place is not None:
            try:
                return (place / NAME).stat().st_mtime
            except OSError:
                continue
    return 0.0


def _last_step(directory: Path) -> int:
    try:
        with (directory / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0
