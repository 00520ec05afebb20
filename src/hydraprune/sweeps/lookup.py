"""What is there to watch in a folder: a sweep that keeps a plan, or runs that nobody planned."""

from __future__ import annotations

import time
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.plan_file import NAME as PLAN
from hydraprune.results.plan_file import Planned, read_plan, straight, told_apart
from hydraprune.results.report import NAME, RunReport, read_report
from hydraprune.sweeps.estimates import time_left
from hydraprune.sweeps.progress import Progress, newest, progress, running_at, written
from hydraprune.utils.files import folders_with


def look(named: Path) -> Progress:
    """How far the sweep in a folder is, or the runs below it where there is no plan.

    Raises:
        UserError: the folder is not there, holds several sweeps, or nothing to watch.
    """
    if not named.is_dir():
        raise UserError(f"{named}: no such folder; give one that holds runs, such as multirun_sweeps/default")
    folder = straight(named)
    places = [folder] if (folder / PLAN).is_file() else folders_with(PLAN, folder)
    if len(places) > 1:
        raise UserError(f"{named}: holds {len(places)} sweeps; give one of {', '.join(map(str, places))}")
    for place in places:
        # First the time: a sweep that starts between the two is shown by its new plan from its old beginning, once.
        since = written(place / PLAN)
        if (plan := read_plan(place)) is not None:
            return progress(plan, since)
    return _unplanned(folder, named)


def _unplanned(folder: Path, named: Path) -> Progress:
    """Runs by their reports alone: how many are to come, and how long they are, nobody has said."""
    found = [(place, report) for place in folders_with(NAME, folder) if (report := read_report(place)) is not None]
    if not found:
        raise UserError(f"{named}: holds no runs and no {PLAN}; give a sweep's folder, or one that holds runs")
    jobs = [(_as_planned(report, place), report) for place, report in found]
    done = [(job, report) for job, report in jobs if report.finished]
    failed = [(job, report.error or "failed") for job, report in jobs if report.status == "failed"]
    running = [running_at(job) for job, report in jobs if report.status == "started"]
    return Progress(
        tuple(done),
        tuple(failed),
        tuple(running),
        (),
        time_left([None] * len(running), 1),
        newest(done),
        idle=max(0.0, time.time() - max(written(place / NAME) for place, _ in found)),
        planned=found[0][0] == folder,
        names=told_apart([job for job, _ in jobs]),
    )


def _as_planned(report: RunReport, directory: Path) -> Planned:
    return Planned(report.spec, directory, report.spec.overrides, report.steps)
