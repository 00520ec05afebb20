"""The metrics of one run: of its final and best evaluation, of its dense model, and their difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydraprune.results.json_records import LARGEST


@dataclass(frozen=True)
class MetricRow:
    """One metric of one run; None where there is no finite value.

    Args:
        final: of the final evaluation.
        best: of the best epoch.
        dense: of the dense model that a sparse run started from.
        difference: final - dense.
    """

    metric: str
    final: float | None
    best: float | None
    dense: float | None
    difference: float | None


def metric_rows(
    final: Mapping[str, Any], best: Mapping[str, Any] | None = None, dense: Mapping[str, Any] | None = None
) -> list[MetricRow]:
    """A row for each metric of a run, from these fields of its report."""
    rows = []
    for metric, value in final.items():
        after, before = finite(value), finite((dense or {}).get(metric))
        difference = None if after is None or before is None else after - before
        rows.append(MetricRow(metric, after, finite((best or {}).get(metric)), before, difference))
    return rows


def finite(value: object) -> float | None:
    """A finite number that means can be taken of; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -LARGEST <= value <= LARGEST else None
