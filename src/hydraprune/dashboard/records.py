"""Reads folders of runs into the contents of the page: cells of the matrix, a comparison per model and task, runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydraprune.dashboard.comparisons import Comparison, Row, comparisons
from hydraprune.results.collect import Gathered, gather
from hydraprune.results.matrix import Cell
from hydraprune.results.report import RunReport, read_report
from hydraprune.results.rows import report_row
from hydraprune.results.study_record import StudyRecord


@dataclass(frozen=True)
class Records:
    """The contents of the page.

    Args:
        cells: of the results matrix, sparse ones first.
        runs: a row per run, with the dense runs that sparse runs started from.
        failures: (folder, reason).
        not_measured: (file, why) of benches, or of models in them, that are of no run here.
        studies: searches of hyperparameters.
    """

    cells: list[Cell]
    comparisons: list[Comparison]
    runs: list[Row]
    failures: list[tuple[str, str]]
    not_measured: list[tuple[str, str]]
    studies: list[StudyRecord]

    @property
    def labels(self) -> list[str]:
        """The labels of sparse cells in the order of the matrix; each has its own color."""
        return list(dict.fromkeys(cell.label for cell in self.cells if cell.spec.phase == "sparse"))


def records(folders: Sequence[Path]) -> Records:
    """Read all runs below `folders`, and the dense runs that they started from, wherever those are.

    Raises:
        UserError: a folder does not exist.
    """
    found = gather(folders)
    dense = _dense_runs(found, folders)
    # A dense run may be below `folders` too, under another spelling of its path.
    known = {place.resolve() for place in found.runs}
    others = {place: report for place, report in dense.values() if place.resolve() not in known}
    everything = replace(found, runs={**found.runs, **others})
    cells = sorted(everything.cells, key=lambda cell: cell.spec.phase != "sparse")
    labels = {cell.spec.cell: cell.label for cell in cells}
    runs = _once(everything.runs, [cell.spec.cell for cell in cells])
    # Without the failures of dense runs found elsewhere, which are not part of these folders.
    failures = [(_relative(folders[0], Path(what)), why) for what, why in found.failures]
    not_measured = [(_relative(folders[0], Path(what)), why) for what, why in everything.measured.left_out]
    started_from = {name: report for name, (_, report) in dense.items()}
    rows = [_run_row(*run, labels, folders[0]) for run in runs]
    compared, studies = comparisons(runs, cells, started_from), list(found.studies.values())
    return Records(cells, compared, rows, failures, not_measured, studies)


def _relative(folder: Path, place: Path) -> str:
    """A path relative to the first folder, so that the page reveals nothing about the disk above it."""
    # Not `Path.resolve`, which fails at a link to itself.
    return Path(os.path.relpath(os.path.realpath(place), os.path.realpath(folder))).as_posix()


def _once(runs: Mapping[Path, RunReport], order: Sequence[str]) -> list[tuple[Path, RunReport]]:
    """Each run once, a finished copy if there is one; sorted by cell in the given `order`, and by seed."""
    found: dict[str, tuple[Path, RunReport]] = {}
    for place, report in sorted(runs.items(), key=lambda run: (not run[1].finished, str(run[0]))):
        # Without a cell: overrides that made no valid config, which are among the failures.
        if report.spec.cell:
            found.setdefault(report.spec.hash, (place, report))
    places = {cell: place for place, cell in enumerate(order)}
    # A copy of a run may name another cell, which the matrix does not have.
    known = [run for run in found.values() if run[1].spec.cell in places]
    return sorted(known, key=lambda run: (places[run[1].spec.cell], run[1].spec.seed, run[1].spec.hash))


def _dense_runs(found: Gathered, folders: Sequence[Path]) -> dict[str, tuple[Path, RunReport]]:
    """The dense runs that sparse runs name, relative to the current folder or to a folder above theirs."""
    above = [Path(), *(parent for folder in folders for parent in folder.resolve().parents)]
    named = {str(report.dense["run"]) for report in found.runs.values() if report.dense and report.dense.get("run")}
    runs = {}
    for name in sorted(named):
        for place in above:
            report = read_report(place / name)
            if report is not None and report.spec.phase == "dense":
                runs[name] = (place / name, report)
                break
    return runs


def _run_row(place: Path, report: RunReport, labels: Mapping[str, str], folder: Path) -> Row:
    label = labels.get(report.spec.cell, report.spec.pattern)
    return {**report_row(report), "label": label, "folder": _relative(folder, place)}
