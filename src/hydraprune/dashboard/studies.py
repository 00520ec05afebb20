"""The runs of one model on one task -> the rows of its figures. Plain values, as JSON has them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hydraprune.results.curves import History, band, read_history
from hydraprune.results.mask_crops import mask_parts
from hydraprune.results.matrix import Cell
from hydraprune.results.report import RunReport
from hydraprune.results.statistics import spread

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """One model on one task: what is drawn together.

    Args:
        metric: the headline one; what else was measured is in `metrics`.
        points: a row per finished sparse run and metric.
        dense: a row per metric and dense config: the spread over the models that those runs started from.
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
        return {str(row["label"]) for row in rows if row["pattern"] != "dense"}


def studies(
    runs: Sequence[tuple[Path, RunReport]], cells: Sequence[Cell], dense: Mapping[str, RunReport]
) -> list[Study]:
    """A study per model and task.

    Args:
        runs: folder and report, every run once.
        cells: of the results matrix.
        dense: the dense models that sparse runs started from, by the names that these give them.
    """

    def subject(run: tuple[Path, RunReport]) -> tuple[str, str]:
        return run[1].spec.task, run[1].spec.model

    grouped = groupby(sorted(runs, key=subject), subject)
    return [_study(task, model, list(mine), cells, dense) for (task, model), mine in grouped]


def _study(
    task: str,
    model: str,
    runs: Sequence[tuple[Path, RunReport]],
    cells: Sequence[Cell],
    dense: Mapping[str, RunReport],
) -> Study:
    mine = [cell for cell in cells if (cell.spec.task, cell.spec.model) == (task, model)]
    sparse = [cell for cell in mine if cell.spec.phase == "sparse"]
    finished = [report for _, report in runs if report.finished]
    metrics = list(dict.fromkeys(name for cell in mine for name in [score.metric for score in cell.scores]))
    metric = next((report.metric for report in finished if report.metric), metrics[0] if metrics else "")
    by_cell = {cell.spec.cell: [run for run in runs if run[1].spec.cell == cell.spec.cell] for cell in mine}
    histories = {key: [read_history(place) for place, _ in found] for key, found in by_cell.items()}
    ancestors = {dense[name].spec.cell for _, report in runs if (name := _started_from(report)) in dense}
    # Beside sparse runs only those dense ones that they started from; others may be of any recipe.
    drawn = [cell for cell in mine if cell.spec.phase == "sparse" or cell.spec.cell in ancestors or not sparse]
    names = {cell.spec.cell: _dense_name(cell, drawn) for cell in drawn if cell.spec.phase == "dense"}
    curves = {
        "score": [row for name in metrics for row in _curves(drawn, histories, names, f"eval/{name}", metric=name)],
        "loss": _curves(drawn, histories, names, "train/loss"),
        "sparsity": _curves(drawn, histories, names, "sparsity/global"),
    }
    return Study(
        task=task,
        model=model,
        metric=metric,
        metrics=metrics,
        points=[row for cell in sparse for row in _points(cell, by_cell[cell.spec.cell])],
        dense=[row for name in metrics for row in _strips(name, mine, names)],
        curves=curves,
        layers=[row for cell in sparse for row in _layers(cell, by_cell[cell.spec.cell])],
        masks=[row for cell in sparse for row in _masks(cell, by_cell[cell.spec.cell])],
    )


def _started_from(report: RunReport) -> str:
    return str((report.dense or {}).get("run", ""))


def _dense_name(cell: Cell, drawn: Sequence[Cell]) -> str:
    """`dense`, and what tells it from others where there are several."""
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


def _strips(metric: str, cells: Sequence[Cell], names: Mapping[str, str]) -> list[Row]:
    """The dense models that sparse runs started from, each once though several patterns start from it.

    Configs that started from others are told apart by their values: two models of one seed are not the same.
    """
    sparse = [cell for cell in cells if cell.spec.phase == "sparse"]
    groups: list[tuple[str, dict[int, float]]] = []
    for cell in sparse or cells:
        for score in (score for score in cell.scores if score.metric == metric):
            values = dict(score.dense if sparse else score.sparse)
            same = [known for _, known in groups if sparse and _agree(known, values)]
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


def _agree(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether values by seed can be of the same models."""
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[seed] == other[seed] for seed in shared)


def _curves(
    cells: Sequence[Cell],
    histories: Mapping[str, Sequence[History]],
    names: Mapping[str, str],
    name: str,
    **more: str,
) -> list[Row]:
    """Rows of bands; `whole` where all seeds of the config that were ever there still are."""
    rows = []
    for cell in cells:
        seeds = sum(name in history for history in histories[cell.spec.cell])
        told = {**_named(cell), "label": names.get(cell.spec.cell, cell.label), **more}
        for at in band(histories[cell.spec.cell], name):
            known = {"step": at.step, "mean": at.mean, "low": at.low, "high": at.high, "n": at.n}
            rows.append({**told, **known, "whole": at.n == seeds})
    return rows


def _layers(cell: Cell, runs: Iterable[tuple[Path, RunReport]]) -> list[Row]:
    by_layer: dict[str, list[float]] = {}
    for _, report in runs:
        for layer, sparsity in ((report.sparsity or {}).get("per_layer") or {}).items():
            by_layer.setdefault(layer, []).append(float(sparsity))
    places = _places(list(by_layer))
    return [
        {**_named(cell), "layer": layer, **places[layer], "sparsity": sum(values) / len(values), "n": len(values)}
        for layer, values in by_layer.items()
    ]


_NUMBERED = re.compile(r"^(?:(.*?)\.)?(\d+)\.(.+)$")


def _places(layers: Sequence[str]) -> dict[str, Row]:
    """What each layer does, and how deep it lies: `attention.self.query`, 3. Heads lie behind all of them.

    What stands before the number is said only where the rest would name two layers alike.
    """
    split = {layer: match.groups() for layer in layers if (match := _NUMBERED.match(layer))}
    short = Counter((depth, role) for _, depth, role in split.values())
    alike = any(count > 1 for count in short.values())
    places = {}
    for layer in layers:
        before, depth, role = split.get(layer, (None, "head", layer.removeprefix("bert.")))
        whole = f"{before}.{role}" if before and alike else role
        places[layer] = {"role": whole.removesuffix(".dense"), "depth": depth}
    return places


def _masks(cell: Cell, runs: Sequence[tuple[Path, RunReport]]) -> list[Row]:
    """Of the first seed whose model is there; the others look alike."""
    for place, report in runs:
        if report.finished and (found := mask_parts(place / "model", report.parts)):
            return [
                {
                    **_named(cell),
                    "seed": report.spec.seed,
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
    return {"cell": cell.spec.cell, "pattern": cell.spec.pattern, "label": cell.label}
