"""The plan of a sweep: its jobs, checked before the first one trains, with the time and disk space they need."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hydraprune.errors import UserError, one_line
from hydraprune.results.plan_file import Plan, Planned
from hydraprune.results.report import NAME, REFUSED, RunReport, read_report
from hydraprune.results.run_spec import invalid_spec
from hydraprune.runs.directory import check_directory, finished
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.preflight import Needs, check, check_device, check_numbers
from hydraprune.runs.setup import TaskLoader
from hydraprune.runs.trial_batch import Trials
from hydraprune.sweeps.estimates import Estimates, duration, time_left
from hydraprune.utils.files import folders_with, nearest
from hydraprune.utils.sizes import format_bytes


@dataclass(frozen=True)
class Job:
    """A job of a sweep before its preflight.

    Args:
        words: its overrides.
        experiment: its experiment; None if the overrides make no valid config.
        mistake: why they make none.
        refusal: the folder for the report of its refusal.
    """

    words: tuple[str, ...]
    experiment: Experiment | None
    mistake: str | None
    refusal: Path


def make_plan(command: Sequence[str], jobs: Iterable[Job], workers: int, elsewhere: bool) -> Plan:
    """Check every job, each config once, and find the dense runs that they need.

    Jobs that start from the same dense run are spread, so that at first each worker trains another one.

    Args:
        elsewhere: whether the jobs run on other machines, so that their device cannot be checked here.
    """
    checked = CheckedCells(elsewhere)
    planned: dict[str, Planned] = {}
    dense: dict[str, Planned] = {}
    for job in jobs:
        run, before = checked.plan(job)
        # Two spellings of one run are one job, unless they have different folders.
        planned.setdefault(f"{run.spec.hash or ' '.join(run.words)} {run.directory}", run)
        if before is not None and run.refused is None:
            dense.setdefault(before.spec.hash, before)
    ordered = _spread(list(planned.values()))
    hashes = {run.spec.hash for run in ordered}
    missing = tuple(run for run in dense.values() if run.spec.hash not in hashes)
    return Plan(tuple(command), workers, tuple(ordered), missing)


def _spread(jobs: list[Planned]) -> list[Planned]:
    """The first job of every dense run, then the second of every one, and so on; dense runs before all."""
    seen: Counter[str] = Counter()
    places = []
    for job in jobs:
        places.append(seen[job.ancestor] if job.ancestor else -1)
        seen[job.ancestor or ""] += 1
    return [job for _, job in sorted(zip(places, jobs, strict=True), key=lambda pair: pair[0])]


class CheckedCells:
    """Cells whose config was checked. The seed plays no part in a check, so each cell is checked once.

    Args:
        elsewhere: see `make_plan`.
    """

    def __init__(self, elsewhere: bool) -> None:
        self._elsewhere = elsewhere
        self._load_data, self._trials = TaskLoader(), Trials()
        self._found: dict[str, Needs | UserError] = {}

    def plan(self, job: Job) -> tuple[Planned, Planned | None]:
        """A job's run, and the dense run that must be trained before it."""
        experiment = job.experiment
        if experiment is None:
            spec = invalid_spec(job.words)
            return Planned(spec, job.refusal, job.words, refused=job.mistake, refusal=job.refusal), None
        dense = experiment.dense
        run = Planned(
            experiment.spec,
            experiment.directory,
            job.words,
            refusal=job.refusal,
            ancestor=None if dense is None else dense.spec.hash,
        )
        try:
            if (report := finished(experiment)) is not None:
                return replace(run, steps=report.steps), None
            run = replace(run, **asdict(self._needs(experiment)))
            if dense is None or finished(dense) is not None:
                return run, None
            of_dense = Planned(dense.spec, dense.directory, dense.spec.overrides)
            return run, replace(of_dense, **asdict(self._needs(dense)))
        except UserError as error:
            return replace(run, refused=one_line(error)), None

    def _needs(self, experiment: Experiment) -> Needs:
        """What a run needs.

        Raises:
            UserError: the run cannot work.
        """
        check_numbers(experiment)
        check_directory(experiment)
        cell = experiment.spec.cell
        if cell not in self._found:
            try:
                if not self._elsewhere:
                    check_device(experiment)
                self._found[cell] = check(experiment, self._load_data, self._trials)
            except UserError as error:
                self._found[cell] = error
        found = self._found[cell]
        if isinstance(found, UserError):
            raise found
        return found


def table(plan: Plan, evidence: Sequence[RunReport], folder: Path, each: bool) -> str:
    """The plan as text: jobs by state, time and disk.

    Args:
        evidence: finished runs to estimate from.
        folder: of the sweep.
        each: whether to add a line for every job.
    """
    states, times = [(job, state(job)) for job in plan.jobs], Estimates(evidence)
    counts = Counter(word for _, word in states)
    left = [job for job, word in states if word not in ("finished", "refused")]
    lines = []
    if each:
        lines += [_line(job, word, times.seconds(job)) for job, word in states]
        lines += [_line(job, f"{state(job)}, first", times.seconds(job)) for job in plan.ancestors]
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    lines.append(f"jobs   {_several(len(plan.jobs), 'job')}: {summary or 'nothing to do'}")
    if plan.ancestors:
        lines.append(f"dense  {_several(len(plan.ancestors), 'dense model')} to train first, each once")
    todo = [*left, *plan.ancestors]
    if todo:
        estimates = [times.seconds(job) for job in todo]
        at_once = f", {plan.workers} at a time" if plan.workers > 1 else ""
        lines.append(f"time   {time_left(estimates, plan.workers)}{at_once}{_without_evidence(estimates)}")
        lines.append(f"disk   {_disk(todo, folder, plan.workers)}")
    lines += [f"refused: {job.directory if job.spec.hash else job.name}: {job.refused}" for job in _refused(plan)]
    return "\n".join(lines)


def show_plan(experiment: Experiment) -> int:
    """Print the plan of a single run.

    Returns:
        The exit code: 2 if the run would be refused.
    """
    folder = experiment.directory.parent
    job = Job((), experiment, None, folder / REFUSED)
    plan = make_plan(experiment.spec.overrides, [job], 1, elsewhere=False)
    print(table(plan, finished_runs([Path(experiment.config["run"]["root"])]), folder, each=True))
    return 2 if any(job.refused for job in plan.jobs) else 0


def finished_runs(folders: Iterable[Path]) -> list[RunReport]:
    """The finished runs below some folders, each once."""
    places = {place.resolve() for folder in folders for place in folders_with(NAME, folder)}
    reports = [report for place in sorted(places) if (report := read_report(place)) is not None]
    return [report for report in reports if report.finished]


def state(job: Planned) -> str:
    """new, finished, failed, stopped, cut or refused."""
    if job.refused is not None:
        return "refused"
    if job.finished() is not None:
        return "finished"
    report = job.report()
    if report is None:
        return "new"
    return report.status if report.status in ("failed", "stopped") else "cut"


def _line(job: Planned, word: str, seconds: float | None) -> str:
    takes = "" if word in ("finished", "refused") else "unknown" if seconds is None else duration(seconds)
    return f"{word:<10} {takes:>8}  {job.name:<40}  {job.directory}"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _without_evidence(estimates: Sequence[float | None]) -> str:
    return "" if any(value is not None for value in estimates) else " (no finished run to go by yet)"


# Weights, two moments and the criterion's scores; two checkpoints kept and one being written.
_CHECKPOINTS = 4 * 3


def _disk(todo: Sequence[Planned], folder: Path, workers: int) -> str:
    """Models of every run, outputs of every teacher, and tokens of every task."""
    models = sum(job.model_bytes for job in todo)
    # Jobs of one dense model share its answers, and those of one task and model their tokens, where they ask for the
    # same: another loss or length has a file of its own.
    answers = sum(size for _, size in {(job.ancestor or job.spec.cell, job.answer_bytes) for job in todo})
    tokens = sum(size for _, _, size in {(job.spec.task, job.spec.model, job.token_bytes) for job in todo})
    free = shutil.disk_usage(nearest(folder)).free
    passing = sum(sorted((job.model_bytes for job in todo), reverse=True)[:workers]) * _CHECKPOINTS
    text = (
        f"about {format_bytes(models)} of models, {format_bytes(answers + tokens)} in the cache, and up to "
        f"{format_bytes(passing)} of checkpoints while jobs run; {format_bytes(free)} free"
    )
    return f"{text}: NOT ENOUGH" if models + answers + tokens + passing > free else text


def _refused(plan: Plan) -> list[Planned]:
    """The refused jobs, one for each reason."""
    return list({job.refused: job for job in reversed(plan.jobs) if job.refused}.values())[::-1]
