"""Collects the reports, plans and benches below some folders, and writes the results matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from hydraprune.errors import UserError
from hydraprune.results.bench_report import NAME as BENCH
from hydraprune.results.bench_report import BenchReport, load_bench
from hydraprune.results.matrix import Cell, matrix
from hydraprune.results.measurements import Measured, measured
from hydraprune.results.plan_file import NAME as PLAN
from hydraprune.results.plan_file import Plan, Planned, load_plan, resolved_folder
from hydraprune.results.report import NAME, REFUSED, RunReport, load_report
from hydraprune.results.study_record import NAME as STUDY
from hydraprune.results.study_record import StudyRecord, load_study
from hydraprune.results.tables import as_json, comma_separated, markdown
from hydraprune.utils.files import folders_with, write_text

FILES = ("matrix.md", "matrix.csv", "matrix.json")


@dataclass(frozen=True)
class Gathered:
    """The reports, plans and benches found below some folders.

    Args:
        runs: directory -> its report.
        planned: jobs of the plans.
        damaged: (file, why) of reports, plans and benches that cannot be read.
        benches: directory -> its bench.json.
        studies: directory -> its study.json.
    """

    runs: dict[Path, RunReport]
    planned: tuple[Planned, ...]
    damaged: tuple[tuple[str, str], ...] = ()
    benches: dict[Path, BenchReport] = field(default_factory=dict)
    studies: dict[Path, StudyRecord] = field(default_factory=dict)

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of the results matrix, without runs that a study stopped early."""
        stopped = self._stopped
        reports = [report for report in self.runs.values() if report.spec.hash not in stopped]
        return matrix(
            reports, [job for job in self.planned if job.spec.hash not in stopped], self.measured.measurements
        )

    @cached_property
    def _stopped(self) -> set[str]:
        """Hashes of runs that a study stopped early, and that are finished nowhere."""
        finished = {report.spec.hash for report in self.runs.values() if report.finished}
        return {report.spec.hash for report in self.runs.values() if report.stopped} - finished

    @cached_property
    def measured(self) -> Measured:
        """What the benches measured of the runs."""
        return measured(self.runs.values(), self.benches)

    @cached_property
    def failures(self) -> list[tuple[str, str]]:
        """(directory, why) of runs that were planned or started and are not finished, and the damaged files."""
        done = {report.spec.hash for report in self.runs.values() if report.finished} | self._stopped
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
        # The file of a planned job is named by its directory already.
        damaged = {file: why for file, why in self.damaged if str(Path(file).parent) not in found}
        return sorted({**found, **damaged}.items())

    def markdown(self) -> str:
        """The results matrix and failures as Markdown."""
        return markdown(self.cells, self.failures, self.measured.left_out)


def gather(folders: Sequence[Path]) -> Gathered:
    """Read every report and bench below `folders`, and reports of jobs of their plans that are stored elsewhere.

    A damaged file is among the failures; the others are read.

    Raises:
        UserError: a folder does not exist.
    """
    runs: dict[Path, RunReport] = {}
    planned: list[Planned] = []
    benches: dict[Path, BenchReport] = {}
    studies: dict[Path, StudyRecord] = {}
    damaged: dict[str, str] = {}
    for named in folders:
        if not named.is_dir():
            raise UserError(
                "no such folder", key=str(named), cure="give one that contains runs, such as multirun_sweeps/default"
            )
        folder = resolved_folder(named)
        plans = read_all(folders_with(PLAN, folder), load_plan, damaged)
        jobs = [job for plan in plans.values() for job in plan.jobs]
        planned += jobs
        stale = set(_stale(plans))
        places = dict.fromkeys([*folders_with(NAME, folder), *(job.directory for job in jobs)])
        runs |= read_all((place for place in places if place not in stale), load_report, damaged)
        benches |= read_all(folders_with(BENCH, folder), load_bench, damaged)
        studies |= read_all(folders_with(STUDY, folder), load_study, damaged)
    return Gathered(runs, tuple(planned), tuple(damaged.items()), benches, studies)


_Record = TypeVar("_Record")


def read_all(
    places: Iterable[Path], read: Callable[[Path], _Record | None], damaged: dict[str, str]
) -> dict[Path, _Record]:
    """Folder -> what `read` finds there, for folders where it finds something.

    Args:
        damaged: gets why, by file, where it cannot be read.
    """
    found = {}
    for place in places:
        try:
            record = read(place)
        except UserError as error:
            damaged[str(error.key)] = f"{error.reason}; {error.cure}"
            continue
        if record is not None:
            found[place] = record
    return found


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
    texts = (gathered.markdown(), comma_separated(cells), as_json(cells, failures))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, texts, strict=True):
            write_text(folder / name, text)
    except OSError as error:
        reason = f"cannot write {FILES[0]} there ({error.strerror or error})"
        raise UserError(reason, key=str(folder), cure="give --out FOLDER") from None
