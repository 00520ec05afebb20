"""Comparisons: the runs of one model on one task as rows for its figures, in plain values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hydraprune.dashboard.speed import Speeds, speeds
from hydraprune.results.curves import History, band, read_history
from hydraprune.results.mask_crops import mask_crops
from hydraprune.results.matrix import Cell
from hydraprune.results.report import RunReport
from hydraprune.results.statistics import spread

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One model on one task: the rows of its figures.

    Args:
        metric: the headline metric, one of `metrics`.
        points: a row per finished sparse run and metric.
        dense: a row per metric and dense config: statistics of the models that the runs started from.
        curves: {score, loss, sparsity} -> rows of bands, with those of dense runs; of scores a band per metric.
        layers: a row per cell and layer, the mean over seeds.
        masks: a row per mask crop; `kept` has a line of 0 and 1 for each row.
        speeds: how fast its models are, for each setting that was measured in.
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
    speeds: list[Speeds]

    @property
    def workloads(self) -> list[str]:
        """What its models were timed on."""
        return list(dict.fromkeys(workload for found in self.speeds for workload in found.workloads))

    @property
    def labels(self) -> set[str]:
        """The labels of its sparse runs, finished or not."""
        rows = [*self.points, *(row for curve in self.curves.values() for row in curve)]
        return {str(row["label"]) for row in rows if row["pattern"] != "dense"}


def comparisons(
    runs: Sequence[tuple[Path, RunReport]], cells: Sequence[Cell], dense: Mapping[str, RunReport]
) -> list[Comparison]:
    """A comparison per model and task.

    Args:
        runs: folder and report, each run once.
        cells: of the results matrix.
        dense: the dense runs that sparse runs started from, by the names that their reports use.
    """

    def subject(run: tuple[Path, RunReport]) -> tuple[str, str]:
        return run[1].spec.task, run[1].spec.model

    grouped = groupby(sorted(runs, key=subject), subject)
    return [_comparison(task, model, list(mine), cells, dense) for (task, model), mine in grouped]


def _comparison(
    task: str,
    model: str,
    runs: Sequence[tuple[Path, RunReport]],
    cells: Sequence[Cell],
    dense: Mapping[str, RunReport],
) -> Comparison:
    mine = [cell for cell in cells if (cell.spec.task, cell.spec.model) == (task, model)]
    sparse = [cell for cell in mine if cell.spec.phase == "sparse"]
    finished = [report for _, report in runs if report.finished]
    metrics = list(dict.fromkeys(name for cell in mine for name in [score.metric for score in cell.scores]))
    metric = next((report.metric for report in finished if report.metric), metrics[0] if metrics else "")
    by_cell = {cell.spec.cell: [run for run in runs if run[1].spec.cell == cell.spec.cell] for cell in mine}
    histories = {key: [read_history(place) for place, _ in found] for key, found in by_cell.items()}
    ancestors = {dense[name].spec.cell for _, report in runs if (name := _started_from(report)) in dense}
    # With sparse runs, only the dense ones that they started from; others may have another recipe.
    drawn = [cell for cell in mine if cell.spec.phase == "sparse" or cell.spec.cell in ancestors or not sparse]
    names = {cell.spec.cell: _dense_name(cell, drawn) for cell in drawn if cell.spec.phase == "dense"}
    curves = {
        "score": [row for name in metrics for row in _curves(drawn, histories, names, f"eval/{name}", metric=name)],
        "loss": _curves(drawn, histories, names, "train/loss"),
        "sparsity": _curves(drawn, histories, names, "sparsity/global"),
    }
    return Comparison(
        task=task,
        model=model,
        metric=metric,
        metrics=metrics,
        points=[row for cell in sparse for row in _points(cell, by_cell[cell.spec.cell])],
        dense=[row for name in metrics for row in _dense_bands(name, mine, names)],
        curves=curves,
        layers=[row for cell in sparse for row in _layers(cell, by_cell[cell.spec.cell])],
        masks=[row for cell in sparse for row in _masks(cell, by_cell[cell.spec.cell])],
        speeds=speeds(mine, {report.spec.hash: _model_name(report, cells) for _, report in runs}),
    )


def _started_from(report: RunReport) -> str:
    return str((report.dense or {}).get("run", ""))


def _model_name(report: RunReport, cells: Sequence[Cell]) -> str:
    return next((cell.label for cell in cells if cell.spec.cell == report.spec.cell), report.spec.pattern)


def _dense_name(cell: Cell, drawn: Sequence[Cell]) -> str:
    """`dense`; the label of its cell if there are several."""
    return "dense" if sum(other.spec.phase == "dense" for other in drawn) == 1 else cell.label


def _points(cell: Cell, runs: Iterable[tuple[Path, RunReport]]) -> list[Row]:
    return [
        {
            **_named(cell),
            "seed": report.spec.seed,
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


def _dense_bands(metric: str, cells: Sequence[Cell], names: Mapping[str, str]) -> list[Row]:
    """Statistics of the dense models that sparse runs started from, each model once.

    Sparse cells whose dense scores of a seed differ started from other models and get a band of their own.
    """
    sparse = [cell for cell in cells if cell.spec.phase == "sparse"]
    groups: list[tuple[str, dict[int, float]]] = []
    for cell in sparse or cells:
        for score in (score for score in cell.scores if score.metric == metric):
            values = dict(score.dense if sparse else score.sparse)
            same = [known for _, known in groups if sparse and _same_models(known, values)]
            if same:
                same[0].update(values)
            elif values:
                groups.append((names.get(cell.spec.cell, f"dense of {cell.label}"), values))
    rows = []
    for label, values in groups:
        found = spread(list(values.values()))
        assert found is not None
        known = {"mean": found.mean, "low": min(values.values()), "high": found.max, "n": found.n}
        rows.append({"metric": metric, "label": label if len(groups) > 1 else "dense", **known})
    return rows


def _same_models(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether scores by seed can be of the same models."""
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[seed] == other[seed] for seed in shared)


def _curves(
    cells: Sequence[Cell],
    histories: Mapping[str, Sequence[History]],
    names: Mapping[str, str],
    name: str,
    **more: str,
) -> list[Row]:
    """Rows of bands; `whole` at steps where no seed of the config is missing."""
    rows = []
    for cell in cells:
        seeds = sum(name in history for history in histories[cell.spec.cell])
        common = {**_named(cell), "label": names.get(cell.spec.cell, cell.label), **more}
        for at in band(histories[cell.spec.cell], name):
            known = {"step": at.step, "mean": at.mean, "low": at.low, "high": at.high, "n": at.n}
            rows.append({**common, **known, "whole": at.n == seeds})
    return rows


def _layers(cell: Cell, runs: Iterable[tuple[Path, RunReport]]) -> list[Row]:
    by_layer: dict[str, list[float]] = {}
    for _, report in runs:
        for layer, sparsity in ((report.sparsity or {}).get("per_layer") or {}).items():
            by_layer.setdefault(layer, []).append(float(sparsity))
    positions = _positions(list(by_layer))
    return [
        {**_named(cell), "layer": layer, **positions[layer], "sparsity": sum(values) / len(values), "n": len(values)}
        for layer, values in by_layer.items()
    ]


_NUMBERED = re.compile(r"^(?:(.*?)\.)?(\d+)\.(.+)$")


def _positions(layers: Sequence[str]) -> dict[str, Row]:
    """The role and depth of each layer: `attention.self.query`, 3; the depth of a head is `head`.

    The part of the name before the depth is shown only if the roles would not be unique otherwise.
    """
    split = {layer: match.groups() for layer in layers if (match := _NUMBERED.match(layer))}
    short = Counter((depth, role) for _, depth, role in split.values())
    ambiguous = any(count > 1 for count in short.values())
    places = {}
    for layer in layers:
        before, depth, role = split.get(layer, (None, "head", layer.removeprefix("bert.")))
        whole = f"{before}.{role}" if before and ambiguous else role
        places[layer] = {"role": whole.removesuffix(".dense"), "depth": depth}
    return places


def _masks(cell: Cell, runs: Sequence[tuple[Path, RunReport]]) -> list[Row]:
    """Mask crops of the first seed whose model exists; those of the others look alike."""
    for place, report in runs:
        if report.finished and (found := mask_crops(place / "model", report.parts)):
            return [
                {
                    **_named(cell),
                    "seed": report.spec.seed,
                    "part": crop.pruner,
                    "shape": crop.pattern,
                    "weight": crop.weight,
                    "top": crop.top,
                    "left": crop.left,
                    "sparsity": crop.sparsity,
                    "kept": ["".join("1" if kept else "0" for kept in row) for row in crop.kept],
                }
                for crop in found
            ]
    return []


def _named(cell: Cell) -> Row:
    return {"cell": cell.spec.cell, "pattern": cell.spec.pattern, "label": cell.label}
