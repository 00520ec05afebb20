"""How far is a sweep? Read from its jobs' folders, by anyone, at any time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.plan_file import Plan, Planned, told_apart
from hydraprune.results.report import NAME, RunReport
from hydraprune.sweeps.estimates import TimeLeft, seconds_of, time_left
from hydraprune.sweeps.tail import Latest, latest

# What a run writes to while it is under way; the newest of them says when it was last seen.
_WRITTEN = (NAME, METRICS, "train.log")
# A run is quiet when it has not written for so many seconds, and not for so many times as long as it usually takes.
_QUIET, _TIMES = 60.0, 5
# How many of the runs that ended are shown.
_LAST = 5
# After so many seconds without a new run, a folder that no plan speaks for is done.
_SETTLED = 30.0


@dataclass(frozen=True)
class Running:
    """A run that is under way.

    Args:
        latest: what it wrote last.
        seconds: since it began, or went on after it was cut; loading and a dense ancestor trained on the way included.
        taken: optimizer steps in that time, without those of earlier pieces.
        quiet: seconds since it last wrote, where that is long ago: its process may be dead.
        left: seconds until it is done; None where nothing says.
        ancestral: it is no job, but the dense run that jobs start from.
    """

    job: Planned
    latest: Latest
    seconds: float
    taken: int
    quiet: float | None = None
    left: float | None = None
    ancestral: bool = False

    @property
    def step(self) -> int:
        """Optimizer steps done, those before it was cut included."""
        return self.latest.step

    @property
    def rate(self) -> float | None:
        """Seconds per step since it began or went on; None before the first line of metrics after that."""
        return self.seconds / self.taken if self.taken else None

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
        last: of those done the few that ended last, the newest at the end.
        passed: seconds since the sweep began, up to its last job's end where all have ended; None where nothing says
            when it began.
        idle: seconds since a job last began or ended.
        planned: whether all jobs are known; otherwise more may come.
        names: of jobs whose own names would not tell them apart, by directory.
    """

    done: tuple[tuple[Planned, RunReport], ...]
    failed: tuple[tuple[Planned, str], ...]
    running: tuple[Running, ...]
    waiting: tuple[Planned, ...]
    left: TimeLeft
    last: tuple[tuple[Planned, RunReport], ...] = ()
    passed: float | None = None
    idle: float = 0.0
    planned: bool = True
    names: Mapping[Path, str] = field(default_factory=dict)

    def name(self, job: Planned) -> str:
        """What a person calls a job of this sweep."""
        return self.names.get(job.directory, job.name)

    @property
    def total(self) -> int:
        """Jobs; running ancestors are none."""
        running = sum(not run.ancestral for run in self.running)
        return len(self.done) + len(self.failed) + len(self.waiting) + running

    @property
    def share(self) -> float:
        """How much of all jobs is done, from 0 to 1; running ones by their steps."""
        begun = sum(run.share for run in self.running if not run.ancestral)
        return (len(self.done) + len(self.failed) + begun) / max(1, self.total)

    @property
    def over(self) -> bool:
        """Whether nothing is to come."""
        return not self.running and not self.waiting and (self.planned or self.idle > _SETTLED)


def progress(plan: Plan, since: float, evidence: Sequence[RunReport] = ()) -> Progress:
    """How far the jobs of `plan` are; those of an earlier command in its folder are no part of it.

    Args:
        since: the time (seconds since the epoch) at which the sweep began; what began before is not running.
        evidence: finished runs to estimate by, besides those of the plan.
    """
    done, failed, running, waiting = [], [], [], []
    missing: list[Planned] = []
    jobs = [job for job in plan.jobs if not job.earlier]
    for job in jobs:
        report = job.report()
        recent = report is not None and _time(job) >= since
        if job.refused is not None:
            failed.append((job, job.refused))
        elif (ended := job.finished()) is not None:
            done.append((job, ended))
        elif report is not None and report.status == "failed" and recent:
            failed.append((job, report.error or "failed"))
        elif report is not None and report.status == "started" and recent:
            running.append(running_at(job))
        else:
            waiting.append(job)
    for job in plan.ancestors:
        report = job.report()
        if report is not None and report.status == "started" and _time(job) >= since:
            running.append(replace(running_at(job), ancestral=True))
        elif report is None or report.status == "started":
            missing.append(job)
    others = [*plan.ancestors, *(job for job in plan.jobs if job.earlier)]
    known = [*evidence, *(report for _, report in done), *(r for j in others if (r := j.finished()))]
    rates = [run.rate for run in running if run.rate is not None]

    def expected(job: Planned) -> float | None:
        found = seconds_of(job, known)
        return statistics.median(rates) * job.steps if found is None and rates and job.steps else found

    shown = []
    for run in running:
        whole = expected(run.job)
        shown.append(replace(run, left=None if whole is None else whole * (1 - run.share)))
    rest = [*(run.left for run in shown), *(expected(job) for job in [*waiting, *missing])]
    now, last = time.time(), max([since, *(_time(job) for job in jobs)])
    return Progress(
        tuple(done),
        tuple(failed),
        tuple(shown),
        tuple(waiting),
        time_left(rest, plan.workers),
        newest(done),
        max(0.0, (now if running or waiting else last) - since),
        max(0.0, now - last),
        names=told_apart(jobs),
    )


def newest(done: Sequence[tuple[Planned, RunReport]]) -> tuple[tuple[Planned, RunReport], ...]:
    """The few that ended last, the newest at the end."""
    return tuple(sorted(done, key=lambda pair: _time(pair[0]))[-_LAST:])


def running_at(job: Planned) -> Running:
    """A run that has begun and not ended, as it is now."""
    now, begun = time.time(), _time(job)
    # Lines older than the report are of an earlier piece: the run has not yet cut them to what stays.
    own = written(job.directory / METRICS) >= begun
    found = latest(job.directory)
    # Only after the lines: a run says where it goes on from before it cuts them.
    taken = max(0, found.step - _from_step(job)) if own else 0
    run = Running(job, found, max(0.0, now - begun), taken)
    wrote = max(written(job.directory / name) for name in _WRITTEN)
    # Up to its last line: the silence itself says nothing of how long is usual.
    usual = found.every * max(0.0, wrote - begun) / taken if taken else 0.0
    silent = now - wrote
    return replace(run, quiet=silent if silent > max(_QUIET, _TIMES * usual) else None)


def _from_step(job: Planned) -> int:
    """The step that the run went on from, 0 if it was never cut or its report is of a version that did not say."""
    report = job.report()
    return 0 if report is None else report.from_step or 0


def _time(job: Planned) -> float:
    """When the job's report was last written; 0 if it is not there."""
    places = [place for place in (job.directory, job.refusal) if place is not None]
    return next((found for place in places if (found := written(place / NAME))), 0.0)


def written(path: Path) -> float:
    """When a file was last written (seconds since the epoch); 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
