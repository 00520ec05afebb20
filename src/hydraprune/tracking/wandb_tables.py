"""A report as numbers and rows for a tracker, and a mask as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = list[Any]

RESULT_COLUMNS = ("metric", "dense", "sparse", "difference", "best epoch")
LAYER_COLUMNS = ("layer", "part", "pattern", "sparsity")

# Of a picture: pixels of a weight, the line after it included; shades from black to white.
_CELL = 8
_KEPT, _PRUNED, _LINE = 40, 245, 200


def summary_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report's figures under flat names; those that it lacks are left out."""
    final, dense = _numbers(report["final"]), _numbers(report["dense"])
    sparsity = _numbers(report["sparsity"])
    figures = {
        **_prefixed("final", final),
        **_prefixed("best", _numbers(report["best"])),
        **_prefixed("dense", dense),
        **_prefixed("difference", {name: final[name] - dense[name] for name in final if name in dense}),
        **_prefixed("sparsity", sparsity),
        **_prefixed("seconds", _numbers(report["seconds"])),
        "pattern_ok": report["pattern_ok"],
        "steps": report["steps"],
        "headline": final.get(report["metric"]),
    }
    return {name: value for name, value in figures.items() if value is not None}


def result_rows(report: Mapping[str, Any]) -> list[Row]:
    """One row a metric, as `RESULT_COLUMNS` says; a dense run has no sparse figures."""
    final, best, before = _numbers(report["final"]), _numbers(report["best"]), _numbers(report["dense"])
    if report["phase"] == "dense":
        return [[name, value, None, None, best.get(name)] for name, value in final.items()]
    return [
        [name, before.get(name), value, value - before[name] if name in before else None, best.get(name)]
        for name, value in final.items()
    ]


def layer_rows(report: Mapping[str, Any]) -> list[Row]:
    """One row a layer, as `LAYER_COLUMNS` says; layers that no part prunes have no part."""
    layers = (report["sparsity"] or {}).get("per_layer") or {}
    parts = {
        weight.removesuffix(".weight"): (name, part["pattern"])
        for name, part in report["parts"].items()
        for weight in part["weights"]
    }
    return [[layer, *parts.get(layer, (None, None)), float(sparsity)] for layer, sparsity in layers.items()]


def picture_of(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Each weight a square, dark where it is kept, with thin lines between."""
    rows, columns = mask.shape
    picture = np.full((rows * _CELL + 1, columns * _CELL + 1), _LINE, np.uint8)
    for row in range(1, _CELL):
        for column in range(1, _CELL):
            picture[row::_CELL, column::_CELL] = np.where(mask, _KEPT, _PRUNED)
    return picture


def _numbers(values: Mapping[str, Any] | None) -> dict[str, float]:
    """What of `values` is a finite number; the folder of a dense run is none, nor are figures layer by layer."""
    numbers = {name: float(value) for name, value in (values or {}).items() if isinstance(value, (int, float))}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
