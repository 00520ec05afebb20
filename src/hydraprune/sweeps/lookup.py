"""The progress of what a folder holds: a sweep with a plan, or runs without one."""

from __future__ import annotations

import time
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.collect import read_all
from hydraprune.results.plan_file import NAME as PLAN
from hydraprune.results.plan_file import Planned, load_plan, resolved_folder, unique_names
from hydraprune.results.report import NAME, load_report
from hydraprune.sweeps.estimates import time_left
from hydraprune.sweeps.job_reports import JobReports
from hydraprune.sweeps.progress import Progress, last_written, newest, progress, running_at
from hydraprune.utils.files import folders_with


def look(named: Path, reports: JobReports | None = None) -> Progress:
    """The progress of the sweep in a folder, or of the runs below it if there is no plan.

    Args:
        reports: see `progress`.

    Raises:
        UserError: the folder does not exist, or contains several sweeps or nothing to watch.
    """
    if not named.is_dir():
        raise UserError(
            "no such folder", key=str(named), cure="give one that contains runs, such as multirun_sweeps/default"
        )
    folder = resolved_folder(named)
    places = [folder] if (folder / PLAN).is_file() else folders_with(PLAN, folder)
    if len(places) > 1:
        cure = f"give one of {', '.join(map(str, places))}"
        raise UserError(f"contains {len(places)} sweeps", key=str(named), cure=cure)
    damaged: dict[str, str] = {}
    # The time first: if a sweep starts in between, its new plan is shown once with its old start.
    times = {place: last_written(place / PLAN) for place in places}
    for place, plan in read_all(places, load_plan, damaged).items():
        return progress(plan, times[place], reports=reports)
    return _unplanned(folder, named, damaged)


def _unplanned(folder: Path, named: Path, damaged: dict[str, str]) -> Progress:
    """The progress of runs without a plan; how many follow, and their lengths, are unknown.

    Args:
        damaged: (file -> why) of the plan.
    """
    found = list(read_all(folders_with(NAME, folder), load_report, damaged).items())
    if not found:
        for file, why in damaged.items():
            raise UserError(why, key=file)
        cure = "give a sweep's folder, or one that contains runs"
        raise UserError(f"contains no runs and no {PLAN}", key=str(named), cure=cure)
    jobs = [(Planned(report.spec, place, report.spec.overrides, report.steps), report) for place, report in found]
    done = [(job, report) for job, report in jobs if report.finished]
    failed = [(job, report.error or "failed") for job, report in jobs if report.status == "failed"]
    running = [
        running_at(job, report, last_written(job.directory / NAME))
        for job, report in jobs
        if report.status == "started"
    ]
    stopped = [(job, report) for job, report in jobs if report.stopped]
    return Progress(
        tuple(done),
        tuple(failed),
        tuple(running),
        (),
        time_left([None] * len(running), 1),
        newest(done),
        idle=max(0.0, time.time() - max(last_written(place / NAME) for place, _ in found)),
        planned=found[0][0] == folder,
        stopped=tuple(stopped),
        names=unique_names([job for job, _ in jobs]),
        damaged=tuple(damaged.items()),
    )
