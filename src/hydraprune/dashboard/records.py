"""Folders -> all that the page shows: the cells of the matrix, a study per model and task, a row per run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydraprune.dashboard.studies import Row, Study, studies
from hydraprune.results.collect import Gathered, gather
from hydraprune.results.matrix import Cell
from hydraprune.results.report import RunReport, read_report


@dataclass(frozen=True)
class Records:
    """All that the page shows.

    Args:
        cells: of the results matrix, sparse ones first.
        runs: a row per run, dense ones that only an heir names among them.
        failures: (what, why).
    """

    cells: list[Cell]
    studies: list[Study]
    runs: list[Row]
    failures: list[tuple[str, str]]

    @property
    def labels(self) -> list[str]:
        """What curves and points are told apart by, in the order of the matrix."""
        return list(dict.fromkeys(cell.label for cell in self.cells if cell.spec.phase == "sparse"))


def records(folders: Sequence[Path]) -> Records:
    """Read all runs below `folders`, and the dense models that they started from, wherever these are.

    Raises:
        UserError: a folder is not there.
    """
    found = gather(folders)
    dense = _dense_runs(found, folders)
    # A run that is here already may have been found by another way.
    known = {place.resolve() for place in found.runs}
    others = {place: report for place, report in dense.values() if place.resolve() not in known}
    everything = replace(found, runs={**found.runs, **others})
    cells = sorted(everything.cells, key=lambda cell: cell.spec.phase != "sparse")
    labels = {cell.spec.cell: cell.label for cell in cells}
    runs = _once(everything.runs, [cell.spec.cell for cell in cells])
    # A sweep's failures are its own; a dense run found elsewhere may belong to anybody.
    failures = [(_from(folders[0], Path(what)), why) for what, why in found.failures]
    started_from = {name: report for name, (_, report) in dense.items()}
    rows = [_run(*run, labels, folders[0]) for run in runs]
    return Records(cells, studies(runs, cells, started_from), rows, failures)


def _from(folder: Path, place: Path) -> str:
    """A place as seen from the first folder, where the page lies by default: it says nothing of the disk above."""
    return Path(os.path.relpath(place.resolve(), folder.resolve())).as_posix()


def _once(runs: Mapping[Path, RunReport], order: Sequence[str]) -> list[tuple[Path, RunReport]]:
    """Every run once, a finished copy before one that is not; by cell in the `order` given, and by seed."""
    found: dict[str, tuple[Path, RunReport]] = {}
    for place, report in sorted(runs.items(), key=lambda run: (not run[1].finished, str(run[0]))):
        # Without a cell: words that made no config, which the failures tell of.
        if report.spec.cell:
            found.setdefault(report.spec.hash, (place, report))
    return sorted(found.values(), key=lambda run: (order.index(run[1].spec.cell), run[1].spec.seed, run[1].spec.hash))


def _dense_runs(found: Gathered, folders: Sequence[Path]) -> dict[str, tuple[Path, RunReport]]:
    """The dense models that sparse runs name, where they say that these are: from here, or from a folder above."""
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


def _run(place: Path, report: RunReport, labels: Mapping[str, str], folder: Path) -> Row:
    seconds, metric = report.seconds, report.metric or ""
    score, dense = report.final.get(metric), (report.dense or {}).get(metric)
    train = seconds.get("train")
    return {
        "hash": report.spec.hash,
        "task": report.spec.task,
        "model": report.spec.model,
        "pattern": report.spec.pattern,
        "label": labels.get(report.spec.cell, report.spec.pattern),
        "phase": report.spec.phase,
        "seed": report.spec.seed,
        "status": report.status,
        "metric": metric,
        "score": score,
        "dense": dense,
        "difference": None if score is None or dense is None else score - dense,
        "sparsity": (report.sparsity or {}).get("prunable"),
        "pattern_ok": report.pattern_ok,
        "steps": report.steps,
        **{part: seconds.get(part) for part in ("total", "train", "eval", "teacher")},
        "steps_per_second": report.steps / train if report.steps and train else None,
        "examples_per_second": report.examples / train if report.examples and train else None,
        "device": report.device,
        "threads": report.threads,
        "precision": report.spec.precision,
        "error": report.error,
        "folder": _from(folder, place),
    }
