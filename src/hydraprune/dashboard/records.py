"""Reports and histories of runs -> the rows that figures are drawn from. Plain values, as JSON has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from hydraprune.results.gathered import Gathered, gather
from hydraprune.results.histories import History, band, read_history
from hydraprune.results.mask_parts import mask_parts
from hydraprune.results.matrix import Cell
from hydraprune.results.report import RunReport, read_report
from hydraprune.results.statistics import spread

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """One model on one task: what is drawn together.

    Args:
        metric: the headline one; what else was measured is in `metrics`.
        points: a row per finished sparse run and metric.
        dense: a row per metric: the spread over the dense models that those runs started from.
        curves: {score, loss, sparsity} -> rows of bands, dense runs among them; of the score a band per metric.
        layers: a row per cell and layer, the mean over seeds.
        masks: a row per part of a mask; `kept` are lines of 0 and 1.
    """

    task: str
    model: str
    metric: str
    metrics: list[str]
    points: list[Row]
    dense: list[Row]
    curves: dict[str, list[Row]]
    layers: list[Row]
    masks: list[Row]

    @property
    def labels(self) -> set[str]:
        """Of its sparse runs, finished or not."""
        rows = [*self.points, *(row for curve in self.curves.values() for row in curve)]
        return {str(row["label"]) for row in rows} - {"dense"}


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
        return list(dict.fromkeys(cell.label for cell in self.cells if cell.phase == "sparse"))


def records(folders: Sequence[Path]) -> Records:
    """Read all runs below `folders`, and the dense models that they started from, wherever these are.

    Raises:
        UserError: a folder is not there.
    """
    found = gather(folders)
    dense = {place: report for place, report in _dense_runs(found, folders).items() if place not in found.runs}
    everything = replace(found, runs={**found.runs, **dense})
    cells = sorted(everything.cells, key=lambda cell: cell.phase != "sparse")
    labels = {cell.cell: cell.label for cell in cells}
    runs = _once(everything.runs, [cell.cell for cell in cells])
    # A sweep's failures are its own; a dense run found elsewhere may belong to anybody.
    return Records(cells, _studies(runs, cells), [_run(*run, labels) for run in runs], found.failures)


def _once(runs: Mapping[Path, RunReport], order: Sequence[str]) -> list[tuple[Path, RunReport]]:
    """Every run once, a finished copy before one that is not; by cell in the `order` given, and by seed."""
    found: dict[str, tuple[Path, RunReport]] = {}
    for place, report in sorted(runs.items(), key=lambda run: (not run[1].finished, str(run[0]))):
        # Without a cell: words that made no config, which the failures tell of.
        if report.cell:
            found.setdefault(report.hash, (place, report))
    return sorted(found.values(), key=lambda run: (order.index(run[1].cell), run[1].seed, run[1].hash))


def _dense_runs(found: Gathered, folders: Sequence[Path]) -> dict[Path, RunReport]:
    """Where sparse runs say that their dense models are: from here, or from a folder above them."""
    above = [Path(), *(parent for folder in folders for parent in folder.resolve().parents)]
    named = {str(report.dense["run"]) for report in found.runs.values() if report.dense and report.dense.get("run")}
    runs = {}
    for name in sorted(named):
        for place in above:
            report = read_report(place / name)
            if report is not None and report.phase == "dense":
                runs[place / name] = report
                break
    return runs


def _run(place: Path, report: RunReport, labels: Mapping[str, str]) -> Row:
    seconds, metric = report.seconds, report.metric or ""
    score, dense = report.final.get(metric), (report.dense or {}).get(metric)
    train = seconds.get("train")
    return {
        "hash": report.hash,
        "task": report.task,
        "model": report.model,
        "pattern": report.pattern,
        "label": labels.get(report.cell, report.pattern),
        "phase": report.phase,
        "seed": report.seed,
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
        "precision": report.precision,
        "error": report.error,
        "folder": place.as_posix(),
    }


def _studies(runs: Sequence[tuple[Path, RunReport]], cells: Sequence[Cell]) -> list[Study]:
    def subject(run: tuple[Path, RunReport]) -> tuple[str, str]:
        return run[1].task, run[1].model

    return [
        _study(task, model, list(mine), cells) for (task, model), mine in groupby(sorted(runs, key=subject), subject)
    ]


def _study(task: str, model: str, runs: Sequence[tuple[Path, RunReport]], cells: Sequence[Cell]) -> Study:
    mine = [cell for cell in cells if (cell.task, cell.model) == (task, model)]
    finished = [report for _, report in runs if report.finished]
    metrics = list(dict.fromkeys(name for cell in mine for name in [score.metric for score in cell.scores]))
    metric = next((report.metric for report in finished if report.metric), metrics[0] if metrics else "")
    by_cell = {cell.cell: [run for run in runs if run[1].cell == cell.cell] for cell in mine}
    histories = {key: [read_history(place) for place, _ in found] for key, found in by_cell.items()}
    curves = {
        "score": [row for name in metrics for row in _curves(mine, histories, f"eval/{name}", metric=name)],
        "loss": _curves(mine, histories, "train/loss"),
        "sparsity": _curves(mine, histories, "sparsity/global"),
    }
    return Study(
        task=task,
        model=model,
        metric=metric,
        metrics=metrics,
        points=[row for cell in mine if cell.phase == "sparse" for row in _points(cell, by_cell[cell.cell])],
        dense=_dense(mine, metrics),
        curves=curves,
        layers=[row for cell in mine if cell.phase == "sparse" for row in _layers(cell, by_cell[cell.cell])],
        masks=[row for cell in mine if cell.phase == "sparse" for row in _masks(cell, by_cell[cell.cell])],
    )


def _points(cell: Cell, runs: Iterable[tuple[Path, RunReport]]) -> list[Row]:
    return [
        {
            **_named(cell),
            "seed": report.seed,
            "metric": name,
            "score": value,
            "sparsity": report.sparsity["prunable"],
            "linear": report.sparsity["linear"],
        }
        for _, report in runs
        if report.finished and report.sparsity is not None
        for name, value in report.final.items()
        if value is not None
    ]


def _dense(cells: Sequence[Cell], metrics: Iterable[str]) -> list[Row]:
    """Each dense model once, though several patterns start from it."""
    rows = []
    for metric in metrics:
        scores = [score for cell in cells for score in cell.scores if score.metric == metric]
        # The sparse runs know what they were compared with; without them the dense runs speak for themselves.
        paired = {seed: value for score in scores for seed, value in score.dense.items()}
        alone = {
            s: v
            for cell in cells
            if cell.phase == "dense"
            for x in cell.scores
            if x.metric == metric
            for s, v in x.sparse.items()
        }
        values = list((paired or alone).values())
        found = spread(values)
        if found is not None:
            rows.append({"metric": metric, "mean": found.mean, "low": min(values), "high": found.max, "n": found.n})
    return rows


def _curves(cells: Sequence[Cell], histories: Mapping[str, Sequence[History]], name: str, **more: str) -> list[Row]:
    return [
        {**_named(cell), **more, "step": at.step, "mean": at.mean, "low": at.low, "high": at.high, "n": at.n}
        for cell in cells
        for at in band(histories[cell.cell], name)
    ]


def _layers(cell: Cell, runs: Iterable[tuple[Path, RunReport]]) -> list[Row]:
    by_layer: dict[str, list[float]] = {}
    for _, report in runs:
        for layer, sparsity in ((report.sparsity or {}).get("per_layer") or {}).items():
            by_layer.setdefault(layer, []).append(float(sparsity))
    return [
        {**_named(cell), "layer": layer, **_place(layer), "sparsity": sum(values) / len(values), "n": len(values)}
        for layer, values in by_layer.items()
    ]


_NUMBERED = re.compile(r"^(?:.*?\.)?(\d+)\.(.+)$")


def _place(layer: str) -> Row:
    """What a layer does, and how deep it lies: `attention.self.query`, 3. Heads lie behind all of them."""
    match = _NUMBERED.match(layer)
    if match is None:
        return {"role": layer.removeprefix("bert.").removesuffix(".dense"), "depth": "head"}
    return {"role": match.group(2).removesuffix(".dense"), "depth": match.group(1)}


def _masks(cell: Cell, runs: Sequence[tuple[Path, RunReport]]) -> list[Row]:
    """Of the first seed whose model is there; the others look alike."""
    for place, report in runs:
        if report.finished and (found := mask_parts(place / "model", report.parts)):
            return [
                {
                    **_named(cell),
                    "seed": report.seed,
                    "part": part.part,
                    "shape": part.pattern,
                    "weight": part.weight,
                    "top": part.top,
                    "left": part.left,
                    "sparsity": part.sparsity,
                    "kept": ["".join("1" if kept else "0" for kept in row) for row in part.kept],
                }
                for part in found
            ]
    return []


def _named(cell: Cell) -> Row:
    return {"cell": cell.cell, "pattern": cell.pattern, "label": "dense" if cell.phase == "dense" else cell.label}
