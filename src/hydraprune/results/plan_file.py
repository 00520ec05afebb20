"""What a sweep is to come to: its jobs, kept as `plan.json` in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydraprune.results.report import RunReport, finished_run, read_report
from hydraprune.results.run_spec import RunSpec, split_spec
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted

SCHEMA = 1
NAME = "plan.json"


@dataclass(frozen=True)
class Planned:
    """One run that is wanted.

    Args:
        directory: of the run.
        words: as typed.
        steps: optimizer steps; None where that could not be found out.
        model_bytes, answer_bytes, token_bytes: disk that it needs for its model and, in the cache, for its
            teacher's answers and its task's tokens.
        ancestor: hash of the dense run that it starts from, if that is one of ours.
        refused: why it cannot run; None if it can.
        refusal: folder of the report that says so.
        earlier: wanted by an earlier command in the same folder, and not by the one that the plan is of.
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
        """What a person calls it; its words where they make no config."""
        return self.spec.name if self.spec.hash else " ".join(self.words)

    def report(self) -> RunReport | None:
        """The report of this very run, if there is one; of its refusal where it was refused when it was to start."""
        found = read_report(self.directory)
        if found is not None and found.spec.hash == self.spec.hash:
            return found
        return None if self.refusal is None else read_report(self.refusal)

    def finished(self) -> RunReport | None:
        """The report of this very run if it is finished and its model is there."""
        return finished_run(self.directory, self.spec.hash)

    def failure(self) -> str | None:
        """Why it is not finished; None if it is."""
        if self.finished() is not None:
            return None
        if self.refused is not None:
            return self.refused
        report = self.report()
        if report is None:
            return "it did not start"
        if report.status == "failed":
            return report.error or "it failed"
        if report.finished:
            return "its report says finished, but its model is gone"
        return "it was cut: its process ended before it did"


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep, and the dense runs that some start from and that no job is.

    Args:
        command: the words of the sweep, as typed.
        workers: jobs that run at a time.
    """

    command: tuple[str, ...]
    workers: int
    jobs: tuple[Planned, ...]
    ancestors: tuple[Planned, ...]


def told_apart(jobs: Sequence[Planned]) -> dict[Path, str]:
    """directory -> name and the words that differ, of jobs that share their name with others."""
    alike: dict[str, list[Planned]] = {}
    for job in jobs:
        alike.setdefault(job.name, []).append(job)
    names = {}
    for name, several in alike.items():
        shared = set.intersection(*(set(job.words) for job in several))
        for job in several:
            names[job.directory] = " ".join([name, *(word for word in job.words if word not in shared)])
    return names


def with_earlier(plan: Plan, earlier: Plan | None) -> Plan:
    """The plan, with the jobs of an earlier one in the same folder behind its own: what is missing stays missing."""
    known = {job.directory for job in plan.jobs}
    rest = () if earlier is None else earlier.jobs
    missing = [job for job in rest if job.directory not in known and not job.refused]
    return replace(plan, jobs=(*plan.jobs, *(replace(job, earlier=True) for job in missing)))


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.json`, atomically; folders in it are relative to its own, so that a sweep can be moved.

    Raises:
        OSError: the folder cannot be written.
    """

    def told(job: Planned) -> dict[str, Any]:
        places = {"directory": job.directory, "refusal": job.refusal}
        shown = {key: None if place is None else _between(folder, place) for key, place in places.items()}
        values = asdict(job)
        del values["spec"]
        return {**job.spec.as_dict(), **values, **shown}

    values = {
        "schema": SCHEMA,
        "command": plan.command,
        "workers": plan.workers,
        "jobs": [told(job) for job in plan.jobs],
        "ancestors": [told(job) for job in plan.ancestors],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / NAME, json.dumps(redacted(values), indent=1) + "\n")


def _between(folder: Path, place: Path) -> str:
    return os.path.relpath(os.path.realpath(place), os.path.realpath(folder))


def straight(folder: Path) -> Path:
    """The folder as it was named, unless that leads through a link or `..`, behind which the way back is another."""
    real = folder.resolve()
    return folder if Path.cwd() / folder == real else real


def read_plan(folder: Path) -> Plan | None:
    """The plan kept in a folder; None when there is none that can be read."""
    try:
        values: Mapping[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        jobs, ancestors = (_read(values[key], straight(folder)) for key in ("jobs", "ancestors"))
        return Plan(tuple(values["command"]), int(values["workers"]), jobs, ancestors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _read(entries: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Planned, ...]:
    found = []
    for entry in entries:
        spec, others = split_spec(entry)
        job = Planned(spec, **{key: others[key] for key in others if key in Planned.__dataclass_fields__})
        refusal = None if job.refusal is None else _place(job.refusal, folder)
        found.append(replace(job, words=tuple(job.words), directory=_place(job.directory, folder), refusal=refusal))
    return tuple(found)


def _place(path: str | Path, folder: Path) -> Path:
    return Path(os.path.normpath(folder / path))
