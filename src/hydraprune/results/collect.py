"""Collects the reports and plans below some folders, and writes the results matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.matrix import Cell, matrix
from hydraprune.results.plan_file import NAME as PLAN
from hydraprune.results.plan_file import Plan, Planned, read_plan, resolved_folder
from hydraprune.results.report import NAME, REFUSED, RunReport, read_report
from hydraprune.results.tables import as_json, comma_separated, markdown
from hydraprune.utils.files import folders_with, write_text

FILES = ("matrix.md", "matrix.csv", "matrix.json")


@dataclass(frozen=True)
class Gathered:
    """The reports and plans found below some folders.

    Args:
        runs: directory -> its report.
        planned: jobs of the plans.
    """

    runs: dict[Path, RunReport]
    planned: tuple[Planned, ...]

    @property
    def cells(self) -> list[Cell]:
        """The cells of the results matrix."""
        return matrix(self.runs.values(), self.planned)

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(directory, why) of runs that were planned or started and are not finished."""
        done = {report.spec.hash for report in self.runs.values() if report.finished}
        found = {}
        for job in self.planned:
            if job.spec.hash not in done and (why := job.failure()) is not None:
                found[str(job.directory)] = why
        known = {job.spec.hash for job in self.planned} | done
        for directory, report in self.runs.items():
            if report.spec.hash not in known or not report.spec.hash:
                why = report.error if report.status == "failed" else "not finished: running, or interrupted"
                if not report.finished and str(directory) not in found:
                    found[str(directory)] = why or "failed"
        return sorted(found.items())

    def markdown(self) -> str:
        """The results matrix and failures as Markdown."""
        return markdown(self.cells, self.failures)


def gather(folders: Sequence[Path]) -> Gathered:
    """Read every report below `folders`, and those of jobs of their plans that are stored elsewhere.

    Raises:
        UserError: a folder does not exist.
    """
    runs: dict[Path, RunReport] = {}
    planned: list[Planned] = []
    for named in folders:
        if not named.is_dir():
            raise UserError(
                "no such folder", key=str(named), cure="give one that contains runs, such as multirun_sweeps/default"
            )
        folder = resolved_folder(named)
        plans = {place: plan for place in folders_with(PLAN, folder) if (plan := read_plan(place))}
        jobs = [job for plan in plans.values() for job in plan.jobs]
        planned += jobs
        stale = set(_stale(plans))
        for directory in [*folders_with(NAME, folder), *(job.directory for job in jobs)]:
            if directory not in stale and (report := read_report(directory)) is not None:
                runs[directory] = report
    return Gathered(runs, tuple(planned))


def _stale(plans: dict[Path, Plan]) -> Iterable[Path]:
    """Folders of refusals by an earlier plan, which the current one does not name."""
    for folder, plan in plans.items():
        named = {job.refusal for job in plan.jobs}
        yield from (place.parent for place in (folder / REFUSED).glob(f"*/{NAME}") if place.parent not in named)


def write_matrix(gathered: Gathered, folder: Path) -> None:
    """Write `matrix.md`, `matrix.csv` and `matrix.json`, each atomically; equal reports give equal bytes.

    Raises:
        UserError: the folder cannot be written.
    """
    cells, failures = gathered.cells, gathered.failures
    texts = (markdown(cells, failures), comma_separated(cells), as_json(cells, failures))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, texts, strict=True):
            write_text(folder / name, text)
    except OSError as error:
        reason = f"cannot write {FILES[0]} there ({error.strerror or error})"
        raise UserError(reason, key=str(folder), cure="give --out FOLDER") from None
