"""Speed of the models of a comparison: rows of a figure for each setting that any of them were measured in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.results.matrix import Cell
from hydraprune.results.measurements import Measurement, Setting


@dataclass(frozen=True)
class Speeds:
    """What was measured in one setting: the rows of a figure.

    Args:
        points: a row per model, side, workload and metric; `level` is the model's score in fp32.
        baselines: a row per workload and baseline that ratios are to.
    """

    setting: Setting
    points: list[dict[str, Any]]
    baselines: list[dict[str, Any]]

    @property
    def workloads(self) -> list[str]:
        """In the order of their measurement."""
        return list(dict.fromkeys(str(row["workload"]) for row in self.points))

    @property
    def engines(self) -> list[str]:
        """In the order of their measurement."""
        return list(dict.fromkeys(str(row["engine"]) for row in self.points))


def speeds(cells: Sequence[Cell], names: Mapping[str, str]) -> list[Speeds]:
    """The speeds of some cells, those whose accuracy was measured too.

    Args:
        names: hash of a run -> what its model is called as a baseline.
    """
    scored = [(cell, found) for cell in cells for found in cell.measured if found.scores]
    return [
        _in(setting, [(cell, found) for cell, found in scored if found.setting == setting], names)
        for setting in sorted({found.setting for _, found in scored})
    ]


def _in(setting: Setting, measured: Sequence[tuple[Cell, Measurement]], names: Mapping[str, str]) -> Speeds:
    seeds: dict[str, set[int]] = {}
    for _, found in measured:
        seeds.setdefault(found.cell, set()).add(found.seed)
    levels = _levels([found for _, found in measured])
    points, baselines = [], {}
    for cell, found in measured:
        seed = f"seed {found.seed}" if len(seeds[found.cell]) > 1 else ""
        common = {
            "cell": cell.spec.cell,
            "pattern": cell.spec.pattern,
            "label": "dense" if cell.spec.phase == "dense" else cell.label,
            "name": ", ".join(filter(None, (cell.label, found.form, seed))),
            "seed": found.seed,
            "engine": found.engine,
            "precision": found.precision,
            "version": found.version,
            "workload": found.workload,
            "ms": 1e3 * found.seconds,
            "times_dense": found.times_fp32,
            "examples": found.examples,
        }
        for metric, value in found.scores.items():
            points.append({**common, "metric": metric, "score": value, "level": levels[found.run, found.form, metric]})
        if found.baseline is not None:
            name = found.baseline.named(names)
            row = {"workload": found.workload, "ms": 1e3 * found.baseline.seconds, "label": f"{name}, fp32"}
            baselines[found.workload, name] = row
    return Speeds(setting, points, list(baselines.values()))


def _levels(measured: Sequence[Measurement]) -> dict[tuple[str, str, str], float]:
    """(run, form, metric) -> the score in fp32; without such a side, the best one."""
    scores: dict[tuple[str, str, str], list[tuple[bool, float]]] = {}
    for found in measured:
        for metric, value in found.scores.items():
            scores.setdefault((found.run, found.form, metric), []).append((found.precision == "fp32", value))
    return {key: max(values)[1] for key, values in scores.items()}
