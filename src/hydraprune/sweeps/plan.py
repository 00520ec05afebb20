"""What will a sweep do? Its jobs checked before the first one trains, and what they will take."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydraprune.errors import UserError, one_line
from hydraprune.results.plan_file import Plan, Planned
from hydraprune.results.report import NAME, RunReport, read_report
from hydraprune.results.run_spec import invalid_spec
from hydraprune.runs import dense as ancestor
from hydraprune.runs import run
from hydraprune.runs.description import spec_of
from hydraprune.runs.experiment import Request
from hydraprune.runs.preflight import Needs, check_numbers
from hydraprune.sweeps.estimates import duration, seconds_of, time_left
from hydraprune.utils.files import folders_with, nearest
from hydraprune.utils.sizes import format_bytes


@dataclass(frozen=True)
class Wanted:
    """A job as it was typed.

    Args:
        request: what the words ask for; None when they make no sense.
        why: they do not.
        refusal: where a report of its refusal would be kept.
    """

    words: tuple[str, ...]
    request: Request | None
    why: str | None
    refusal: Path


def draw(command: Sequence[str], jobs: Iterable[Wanted], workers: int, elsewhere: bool) -> Plan:
    """Check every job, each config once, and find the dense runs that they need.

    Jobs that start from one dense run are kept apart, so that at first each worker trains another.

    Args:
        elsewhere: the jobs run on other machines, so their device cannot be checked on this one.
    """
    examined = _Examined(elsewhere)
    planned: dict[str, Planned] = {}
    ancestors: dict[str, Planned] = {}
    for wanted in jobs:
        job, before = examined.job(wanted)
        # Two spellings of one run are one job, unless they are to go to two places.
        planned.setdefault(f"{job.spec.hash or ' '.join(job.words)} {job.directory}", job)
        if before is not None and job.refused is None:
            ancestors.setdefault(before.spec.hash, before)
    jobs_left = _spread(list(planned.values()))
    hashes = {job.spec.hash for job in jobs_left}
    return Plan(
        tuple(command), workers, tuple(jobs_left), tuple(a for a in ancestors.values() if a.spec.hash not in hashes)
    )


def _spread(jobs: list[Planned]) -> list[Planned]:
    """The first job of every dense run, then the second of every one, and so on; dense runs before all."""
    seen: Counter[str] = Counter()
    places = []
    for job in jobs:
        places.append(seen[job.ancestor] if job.ancestor else -1)
        seen[job.ancestor or ""] += 1
    return [job for _, job in sorted(zip(places, jobs, strict=True), key=lambda pair: pair[0])]


class _Examined:
    """Configs that were checked. The seed plays no part in a check, so each cell is checked once."""

    def __init__(self, elsewhere: bool) -> None:
        self.elsewhere = elsewhere
        self.found: dict[str, Needs | str] = {}

    def job(self, wanted: Wanted) -> tuple[Planned, Planned | None]:
        """A job, and the dense run that must be trained before it."""
        request = wanted.request
        if request is None:
            spec = invalid_spec(wanted.words)
            return Planned(spec, wanted.refusal, wanted.words, refused=wanted.why, refusal=wanted.refusal), None
        before = ancestor.of(request)
        job = replace(
            planned(request),
            words=wanted.words,
            refusal=wanted.refusal,
            ancestor=before.hash if before else None,
        )
        if (report := ancestor.finished(request)) is not None:
            return replace(job, steps=report.steps), None
        try:
            needs = self.needs(request)
            if before is None or ancestor.finished(before) is not None:
                return _with(job, needs), None
            return _with(job, needs), _with(planned(before), self.needs(before))
        except UserError as error:
            return replace(job, refused=one_line(error)), None

    def needs(self, request: Request) -> Needs:
        """See `run.examine`.

        Raises:
            UserError: the run cannot work.
        """
        check_numbers(request.config)
        run.refuse_foreign(request)
        key = request.identity.cell
        if key not in self.found:
            try:
                self.found[key] = run.examine(self._anywhere(request))
            except UserError as error:
                self.found[key] = one_line(error)
        found = self.found[key]
        if isinstance(found, str):
            raise UserError(found)
        return found

    def _anywhere(self, request: Request) -> Request:
        if not self.elsewhere:
            return request
        config = request.config.copy()
        config.training.device = "auto"
        return replace(request, config=config)


def planned(request: Request) -> Planned:
    """The run that a request asks for."""
    return Planned(spec_of(request), request.directory, tuple(request.overrides))


def _with(job: Planned, needs: Needs) -> Planned:
    return replace(
        job,
        steps=needs.steps,
        model_bytes=needs.model_bytes,
        answer_bytes=needs.answer_bytes,
        token_bytes=needs.token_bytes,
    )


def table(plan: Plan, evidence: Sequence[RunReport], folder: Path, each: bool) -> str:
    """The plan as a person reads it: jobs, what is done and left, time and disk.

    Args:
        evidence: finished runs to estimate by.
        folder: of the sweep.
        each: one line for every job; otherwise only the sums.
    """
    states = [(job, state(job)) for job in plan.jobs]
    counts = Counter(word for _, word in states)
    left = [job for job, word in states if word not in ("finished", "refused")]
    lines = []
    if each:
        lines += [_line(job, word, seconds_of(job, evidence)) for job, word in states]
        lines += [_line(job, f"{state(job)}, first", seconds_of(job, evidence)) for job in plan.ancestors]
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    lines.append(f"jobs   {_several(len(plan.jobs), 'job')}: {said or 'nothing to do'}")
    if plan.ancestors:
        lines.append(f"dense  {_several(len(plan.ancestors), 'dense model')} to train first, each once")
    todo = [*left, *plan.ancestors]
    if todo:
        estimates = [seconds_of(job, evidence) for job in todo]
        at_once = f", {plan.workers} at a time" if plan.workers > 1 else ""
        lines.append(f"time   {time_left(estimates, plan.workers)}{at_once}{_by(estimates)}")
        lines.append(f"disk   {_disk(todo, folder, plan.workers)}")
    lines += [f"refused: {job.directory if job.spec.hash else job.name}: {job.refused}" for job in _once(plan)]
    return "\n".join(lines)


def evidence(folders: Iterable[Path]) -> list[RunReport]:
    """The finished runs below some folders, each once."""
    places = {place.resolve() for folder in folders for place in folders_with(NAME, folder)}
    reports = [report for place in sorted(places) if (report := read_report(place)) is not None]
    return [report for report in reports if report.finished]


def state(job: Planned) -> str:
    """new, finished, failed, cut or refused."""
    if job.refused is not None:
        return "refused"
    if job.finished() is not None:
        return "finished"
    report = job.report()
    if report is None:
        return "new"
    return "failed" if report.status == "failed" else "cut"


def _line(job: Planned, word: str, seconds: float | None) -> str:
    takes = "" if word in ("finished", "refused") else "unknown" if seconds is None else duration(seconds)
    return f"{word:<10} {takes:>8}  {job.name:<40}  {job.directory}"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _by(estimates: Sequence[float | None]) -> str:
    return "" if any(value is not None for value in estimates) else " (no finished run to go by yet)"


# Weights, two moments and what a criterion remembers; two checkpoints kept and one being written.
_CHECKPOINTS = 4 * 3


def _disk(todo: Sequence[Planned], folder: Path, workers: int) -> str:
    """Models of every run; answers once per teacher, tokens once per task."""
    models = sum(job.model_bytes for job in todo)
    answers = sum({job.ancestor or job.spec.cell: job.answer_bytes for job in todo}.values())
    tokens = sum({(job.spec.task, job.spec.model): job.token_bytes for job in todo}.values())
    free = shutil.disk_usage(nearest(folder)).free
    passing = sum(sorted((job.model_bytes for job in todo), reverse=True)[:workers]) * _CHECKPOINTS
    text = (
        f"about {format_bytes(models)} of models, {format_bytes(answers + tokens)} in the cache, and up to "
        f"{format_bytes(passing)} of checkpoints while jobs run; {format_bytes(free)} free"
    )
    return f"{text}: NOT ENOUGH" if models + answers + tokens + passing > free else text


def _once(plan: Plan) -> list[Planned]:
    """Refused jobs, of those with one reason the first."""
    return list({job.refused: job for job in reversed(plan.jobs) if job.refused}.values())[::-1]
