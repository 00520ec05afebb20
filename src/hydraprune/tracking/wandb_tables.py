"""A report as W&B summary values and table rows, and a mask as an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydraprune.results.metric_rows import MetricRow, finite, metric_rows

TableRow = list[Any]

RESULT_COLUMNS = ("metric", "dense", "sparse", "difference", "best epoch")
LAYER_COLUMNS = ("layer", "part", "pattern", "sparsity")

# Pixels per weight, including the grid line, and the gray values of the image.
_PIXELS = 8
_KEPT, _PRUNED, _LINE = 40, 245, 200


def report_summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a report under flat names; missing and non-finite ones are left out.

    Args:
        report: as in report.json.
    """
    rows = _metrics(report)
    values = {
        **{f"final/{row.metric}": row.final for row in rows},
        **_prefixed("best", report["best"]),
        **_prefixed("dense", report["dense"]),
        **{f"difference/{row.metric}": row.difference for row in rows},
        **_prefixed("sparsity", report["sparsity"]),
        **_prefixed("seconds", report["seconds"]),
        "pattern_ok": report["pattern_ok"],
        "steps": report["steps"],
        "headline": next((row.final for row in rows if row.metric == report["metric"]), None),
    }
    return {name: value for name, value in values.items() if value is not None}


def result_rows(report: Mapping[str, Any]) -> list[TableRow]:
    """One row per metric, with `RESULT_COLUMNS`; a dense run has no sparse values."""
    rows = [row for row in _metrics(report) if row.final is not None]
    if report["phase"] == "dense":
        return [[row.metric, row.final, None, None, row.best] for row in rows]
    return [[row.metric, row.dense, row.final, row.difference, row.best] for row in rows]


def layer_rows(report: Mapping[str, Any]) -> list[TableRow]:
    """One row per layer, with `LAYER_COLUMNS`; layers that are not pruned have no part."""
    layers = (report["sparsity"] or {}).get("per_layer") or {}
    parts = {
        weight.removesuffix(".weight"): (name, part["pattern"])
        for name, part in report["parts"].items()
        for weight in part["weights"]
    }
    return [[layer, *parts.get(layer, (None, None)), float(sparsity)] for layer, sparsity in layers.items()]


def mask_image(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask [rows, columns] as a gray image: a square per weight, dark if it is kept, with grid lines between."""
    rows, columns = mask.shape
    image = np.full((rows * _PIXELS + 1, columns * _PIXELS + 1), _LINE, np.uint8)
    for row in range(1, _PIXELS):
        for column in range(1, _PIXELS):
            image[row::_PIXELS, column::_PIXELS] = np.where(mask, _KEPT, _PRUNED)
    return image


def _metrics(report: Mapping[str, Any]) -> list[MetricRow]:
    return metric_rows(report["final"], report["best"], report["dense"])


def _prefixed(prefix: str, values: Mapping[str, Any] | None) -> dict[str, float]:
    numbers = {name: finite(value) for name, value in (values or {}).items()}
    return {f"{prefix}/{name}": value for name, value in numbers.items() if value is not None}
