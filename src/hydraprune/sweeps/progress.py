"""The progress of a sweep, read from the folders of its jobs by any process at any time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.plan_file import Plan, Planned, unique_names
from hydraprune.results.report import NAME, RunReport
from hydraprune.sweeps.estimates import Estimates, TimeLeft, time_left
from hydraprune.sweeps.job_reports import JobReports
from hydraprune.sweeps.tail import Latest, read_latest

# Files that a running job writes; the newest says when it was last active.
_ACTIVITY = (NAME, METRICS, "train.log")
# A run is quiet if it has not written for this many seconds, and for this many times its usual interval.
_QUIET_SECONDS, _QUIET_INTERVALS = 60.0, 5
# Finished runs that are shown.
_SHOWN = 5
# A folder without a plan is done after this many seconds without a new run.
_SETTLED_SECONDS = 30.0


@dataclass(frozen=True)
class Running:
    """A running job.

    Args:
        latest: its latest metrics.
        seconds: since it started or was resumed, with the time for loading and for training its dense model.
        taken: optimizer steps in that time.
        quiet: seconds since it last wrote, if that is unusually long: its process may be dead.
        left: seconds until it is done; None if unknown.
        is_ancestor: not a job itself, but a dense run that jobs start from.
    """

    job: Planned
    latest: Latest
    seconds: float
    taken: int
    quiet: float | None = None
    left: float | None = None
    is_ancestor: bool = False

    @property
    def step(self) -> int:
        """Optimizer steps done, including those before it was resumed."""
        return self.latest.step

    @property
    def rate(self) -> float | None:
        """Seconds per step since it started or was resumed; None before its first metrics."""
        return self.seconds / self.taken if self.taken else None

    @property
    def share(self) -> float:
        """The share of its steps that is done, from 0 to 1."""
        return min(1.0, self.step / self.job.steps) if self.job.steps else 0.0


@dataclass(frozen=True)
class Progress:
    """A sweep at one moment.

    Args:
        done: with their reports.
        failed: with the reason.
        running: including dense runs that jobs start from.
        waiting: jobs that have not started, and those interrupted in an earlier sweep.
        last: the last few that finished, the newest at the end.
        passed: seconds from the start of the sweep until now, or until the end of its last job; None if unknown.
        idle: seconds since a job last started or ended.
        planned: whether all jobs are known; otherwise more may follow.
        stopped: by a study, early.
        following: jobs of a study that are not known yet.
        names: unique names of the jobs, by directory.
        damaged: (file or name of a job, why) of reports and plans that cannot be read.
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
    stopped: tuple[tuple[Planned, RunReport], ...] = ()
    following: int = 0
    names: Mapping[Path, str] = field(default_factory=dict)
    damaged: tuple[tuple[str, str], ...] = ()

    def name(self, job: Planned) -> str:
        """The unique name of a job."""
        return self.names.get(job.directory, job.name)

    @property
    def total(self) -> int:
        """The number of jobs, without dense runs that are not jobs."""
        running = sum(not run.is_ancestor for run in self.running)
        return self.ended + len(self.waiting) + running + self.following

    @property
    def ended(self) -> int:
        """The number of jobs that will not go on."""
        return len(self.done) + len(self.failed) + len(self.stopped)

    @property
    def share(self) -> float:
        """The share of all jobs that is done, from 0 to 1; of running ones, their share of steps."""
        partly = sum(run.share for run in self.running if not run.is_ancestor)
        return (self.ended + partly) / max(1, self.total)

    @property
    def over(self) -> bool:
        """Whether nothing is left to run."""
        return not self.running and not self.waiting and (self.planned or self.idle > _SETTLED_SECONDS)


def progress(
    plan: Plan, since: float, evidence: Sequence[RunReport] = (), reports: JobReports | None = None
) -> Progress:
    """The progress of the jobs of `plan`, without those of an earlier command in its folder.

    Args:
        since: when the sweep started (seconds since the epoch); runs that started before are not running.
        evidence: more finished runs to estimate times from.
        reports: those of an earlier look, so that only what changed is read; they are kept up to date.
    """
    reports = reports or JobReports()
    done, failed, stopped, running, waiting, damaged = [], [], [], [], [], []
    missing: list[Planned] = []
    jobs = [job for job in plan.jobs if not job.earlier]
    last = since
    for job in jobs:
        found = reports.of(job)
        report, recent = found.report, found.written >= since
        last = max(last, found.written)
        if job.refused is not None:
            failed.append((job, job.refused))
        elif report is not None and found.finished:
            done.append((job, report))
        elif report is not None and report.stopped and recent:
            stopped.append((job, report))
        elif report is not None and report.status == "failed" and recent:
            failed.append((job, report.error or "failed"))
        elif report is not None and report.status == "started" and recent:
            running.append(running_at(job, report, found.written))
        else:
            waiting.append(job)
            if found.damage is not None:
                damaged.append((str(job.directory / NAME), found.damage))
    known = [*evidence, *(report for _, report in done)]
    for job in [*plan.ancestors, *(job for job in plan.jobs if job.earlier)]:
        found = reports.of(job)
        if found.report is not None and found.finished:
            known.append(found.report)
    for job in plan.ancestors:
        found = reports.of(job)
        report = found.report
        if report is not None and report.status == "started" and found.written >= since:
            running.append(replace(running_at(job, report, found.written), is_ancestor=True))
        elif report is None or report.status == "started":
            missing.append(job)
    rates = [run.rate for run in running if run.rate is not None]
    estimates = Estimates(known)

    def expected(job: Planned) -> float | None:
        found = estimates.seconds(job)
        return statistics.median(rates) * job.steps if found is None and rates and job.steps else found

    shown = []
    for run in running:
        whole = expected(run.job)
        shown.append(replace(run, left=None if whole is None else whole * (1 - run.share)))
    rest = [*(run.left for run in shown), *(expected(job) for job in [*waiting, *missing])]
    now = time.time()
    return Progress(
        tuple(done),
        tuple(failed),
        tuple(shown),
        tuple(waiting),
        time_left(rest, plan.workers),
        newest(done),
        max(0.0, (now if running or waiting else last) - since),
        max(0.0, now - last),
        stopped=tuple(stopped),
        names=unique_names(jobs),
        damaged=tuple(damaged),
    )


def with_following(now: Progress, following: int, workers: int) -> Progress:
    """The progress of a study, of whose jobs some are not known yet: each takes as long as those before, on average.

    Args:
        workers: jobs that run at a time.
    """
    totals = [report.seconds.get("total", 0.0) for _, report in now.done]
    each = statistics.fmean(totals) if totals else None
    left = time_left([*(run.left for run in now.running), *[each] * following], workers)
    return replace(now, following=following, left=left)


def newest(done: Sequence[tuple[Planned, RunReport]]) -> tuple[tuple[Planned, RunReport], ...]:
    """The last few that finished, the newest at the end."""
    return tuple(sorted(done, key=lambda pair: last_written(pair[0].directory / NAME))[-_SHOWN:])


def running_at(job: Planned, report: RunReport, begun: float) -> Running:
    """The progress of a run that has started and not ended.

    Args:
        report: of the run.
        begun: when the report was last written (seconds since the epoch).
    """
    now = time.time()
    # Metrics older than the report are from before the interruption: a resumed run has not truncated them yet.
    own = last_written(job.directory / METRICS) >= begun
    found = read_latest(job.directory)
    # Read after the metrics: a resumed run reports its first step before it truncates them.
    taken = max(0, found.step - (report.from_step or 0)) if own else 0
    run = Running(job, found, max(0.0, now - begun), taken)
    wrote = max(last_written(job.directory / name) for name in _ACTIVITY)
    # Up to its last line, so that the current silence does not count.
    usual = found.every * max(0.0, wrote - begun) / taken if taken else 0.0
    silent = now - wrote
    return replace(run, quiet=silent if silent > max(_QUIET_SECONDS, _QUIET_INTERVALS * usual) else None)


def last_written(path: Path) -> float:
    """When a file was last written (seconds since the epoch); 0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
