"""The plan of a sweep: its jobs, stored as `plan.json` in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError
from hydraprune.results.json_records import check_fields, damaged, read_record
from hydraprune.results.labels import Named, differences
from hydraprune.results.report import RunReport, finished_run, load_report, read_report
from hydraprune.results.run_spec import RunSpec, split_spec
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted
from hydraprune.utils.weights_files import missing_weights

SCHEMA = 1
NAME = "plan.json"


@dataclass(frozen=True)
class Planned:
    """One planned run.

    Args:
        directory: of the run.
        words: its overrides as typed.
        steps: optimizer steps; None if unknown.
        model_bytes, answer_bytes, token_bytes: disk space for its model and, in the cache, for its teacher's
            outputs and its task's tokens.
        ancestor: hash of the dense run that it starts from, if it has one.
        refused: why it cannot run; None if it can.
        refusal: folder for the report of its refusal.
        earlier: part of an earlier command in the same folder, and not of the command of this plan.
    """

    spec: RunSpec
    directory: Path
    words: tuple[str, ...]
    steps: int | None = None
    model_bytes: int = 0
    answer_bytes: int = 0
    token_bytes: int = 0
    ancestor: str | None = None
    refused: str | None = None
    refusal: Path | None = None
    earlier: bool = False

    @property
    def name(self) -> str:
        """A name for people; its overrides if they make no valid config."""
        return self.spec.name if self.spec.hash else " ".join(self.words)

    def report(self) -> RunReport | None:
        """Its report, if there is one; or the report of its refusal."""
        found = read_report(self.directory)
        if found is not None and found.spec.hash == self.spec.hash:
            return found
        return None if self.refusal is None else read_report(self.refusal)

    def damage(self) -> str | None:
        """Why its report cannot be read; None if it can, or if there is none."""
        try:
            load_report(self.directory)
        except UserError as error:
            return error.reason
        return None

    def finished(self) -> RunReport | None:
        """Its report if it is finished and its model is whole."""
        return finished_run(self.directory, self.spec.hash)

    def failure(self) -> str | None:
        """Why it is not finished; None if it is."""
        if self.finished() is not None:
            return None
        if self.refused is not None:
            return self.refused
        if (damage := self.damage()) is not None:
            return f"its report {damage}"
        report = self.report()
        if report is None:
            return "it did not start"
        if report.stopped:
            return "a study stopped it early"
        if report.status == "failed":
            return report.error or "it failed"
        if report.finished:
            lost = missing_weights(self.directory / "model")
            return f"its report says finished, but model/{lost} is missing or incomplete"
        return "it was interrupted: its process ended before the run did"


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Args:
        command: the overrides of the sweep, as typed.
        workers: jobs that run at a time.
        ancestors: dense runs that jobs start from and that are not jobs themselves.
    """

    command: tuple[str, ...]
    workers: int
    jobs: tuple[Planned, ...]
    ancestors: tuple[Planned, ...]


def unique_names(jobs: Sequence[Planned]) -> dict[Path, str]:
    """directory -> name of each job, with the overrides in which it differs from others of the same name."""
    named = [Named(job.name, job.spec, job.words, job.spec.hash) for job in jobs]
    return {
        job.directory: f"{job.name} {differs}".rstrip() for job, differs in zip(jobs, differences(named), strict=True)
    }


def with_earlier(plan: Plan, earlier: Plan | None) -> Plan:
    """The plan with the jobs of an earlier one in the same folder at the end, so that missing runs stay listed."""
    known = {job.directory for job in plan.jobs}
    rest = () if earlier is None else earlier.jobs
    missing = [job for job in rest if job.directory not in known and not job.refused]
    return replace(plan, jobs=(*plan.jobs, *(replace(job, earlier=True) for job in missing)))


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.json` atomically; folders in it are relative to its own, so that a sweep can be moved.

    Raises:
        OSError: the folder cannot be written.
    """

    def entry(job: Planned) -> dict[str, Any]:
        places = {"directory": job.directory, "refusal": job.refusal}
        shown = {key: None if place is None else _relative(folder, place) for key, place in places.items()}
        values = asdict(job)
        del values["spec"]
        return {**job.spec.as_dict(), **values, **shown}

    values = {
        "schema": SCHEMA,
        "command": plan.command,
        "workers": plan.workers,
        "jobs": [entry(job) for job in plan.jobs],
        "ancestors": [entry(job) for job in plan.ancestors],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / NAME, json.dumps(redacted(values), indent=1) + "\n")


def _relative(folder: Path, place: Path) -> str:
    return os.path.relpath(os.path.realpath(place), os.path.realpath(folder))


def resolved_folder(folder: Path) -> Path:
    """The folder as given; resolved if its path has links or `..`, from which relative paths would lead elsewhere."""
    real = folder.resolve()
    return folder if Path.cwd() / folder == real else real


def load_plan(folder: Path) -> Plan | None:
    """The plan stored in a folder; None if there is none.

    Raises:
        UserError: it is damaged: naming the file, and the value that no plan has.
    """
    values = read_record(folder / NAME)
    if values is None:
        return None
    try:
        check_fields(values, Plan, _SHAPES)
        jobs, ancestors = (_read(values[key], resolved_folder(folder)) for key in ("jobs", "ancestors"))
    except ValueError as error:
        raise damaged(folder / NAME, str(error)) from None
    return Plan(tuple(values["command"]), values["workers"], jobs, ancestors)


def read_plan(folder: Path) -> Plan | None:
    """The plan stored in a folder; None if there is none, or if it is damaged."""
    try:
        return load_plan(folder)
    except UserError:
        return None


# The entries are checked one by one: their keys are those of a job and of its spec.
_SHAPES: dict[str, Any] = dict.fromkeys(("jobs", "ancestors"), list[dict[str, Any]])


def _read(entries: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Planned, ...]:
    found = []
    for entry in entries:
        check_fields({"spec": None, **entry}, Planned, {"spec": Any})
        spec, others = split_spec(entry)
        job = Planned(spec, **{key: others[key] for key in others if key in Planned.__dataclass_fields__})
        refusal = None if job.refusal is None else _place(job.refusal, folder)
        found.append(replace(job, words=tuple(job.words), directory=_place(job.directory, folder), refusal=refusal))
    return tuple(found)


def _place(path: str | Path, folder: Path) -> Path:
    return Path(os.path.normpath(folder / path))
