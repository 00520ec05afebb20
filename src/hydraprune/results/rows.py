"""Reports and cells as flat rows: the one place that tables, the dashboard and trackers take their values from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hydraprune.results.matrix import Cell, Score
from hydraprune.results.metric_rows import metric_rows
from hydraprune.results.report import RunReport
from hydraprune.results.speed import SpeedColumn
from hydraprune.results.statistics import Spread, spread

Row = dict[str, Any]

# Columns of `cell_row` that hold one value per seed; JSON has them as lists.
SEED_COLUMNS = ("finished", "failed", "missing", "broken")
# What the names of the columns of `speed_row` begin with.
SPEED = "speed"
_KINDS_OF_TIME = ("total", "train", "eval", "teacher")


def report_row(report: RunReport) -> Row:
    """A run as a flat row."""
    spec, seconds = report.spec, report.seconds
    metrics = metric_rows(report.final, report.best, report.dense)
    headline = next((row for row in metrics if row.metric == report.metric), None)
    train = seconds.get("train")
    return {
        **{name: getattr(spec, name) for name in ("hash", "task", "model", "pattern", "phase", "seed")},
        "status": report.status,
        "metric": report.metric or "",
        "score": headline.final if headline else None,
        "dense": headline.dense if headline else None,
        "difference": headline.difference if headline else None,
        "sparsity": (report.sparsity or {}).get("prunable"),
        "pattern_ok": report.pattern_ok,
        "steps": report.steps,
        **{kind: seconds.get(kind) for kind in _KINDS_OF_TIME},
        "steps_per_second": report.steps / train if report.steps and train else None,
        "examples_per_second": report.examples / train if report.examples and train else None,
        "device": report.device,
        "threads": report.threads,
        "precision": spec.precision,
        "error": report.error,
    }


def cell_row(cell: Cell, score: Score | None) -> Row:
    """A cell with one of its metrics as a flat row; its columns are those of `matrix.csv`.

    Args:
        score: None for a cell without a finished run, whose row ends before the column `metric`.
    """
    spec = cell.spec
    row: Row = {
        **{name: getattr(spec, name) for name in ("cell", "phase", "task", "model", "pattern", "target_sparsity")},
        "differs": cell.differs,
        "precision": spec.precision,
        "recipe": cell.recipe,
        "typed": list(cell.typed),
        **{name: list(getattr(cell, name)) for name in SEED_COLUMNS},
        "ratio": cell.ratio.mean if cell.ratio else None,
        "prunable_sparsity": cell.prunable.mean if cell.prunable else None,
    }
    if score is None:
        return row
    low, high = score.interval or (None, None)
    published = cell.published
    published = published if published is not None and published.metric == score.metric else None
    inside = None if published is None or low is None or high is None else low <= published.difference <= high
    return row | {
        "metric": score.metric,
        **_spread_columns("sparse", spread(list(score.sparse.values()))),
        **_spread_columns("dense", spread([score.dense[seed] for seed in score.differences])),
        **_spread_columns("best_epoch", spread(list(score.best.values()))),
        **_spread_columns("difference", score.difference),
        "difference_low": low,
        "difference_high": high,
        "drop": score.drop,
        "drop_of_means": score.mean_drop,
        "published_drop": published.drop if published else None,
        "published_difference": published.difference if published else None,
        "published_inside": inside,
    }


def cell_rows(cell: Cell) -> list[Row]:
    """A row for each metric of a cell; one row for a cell without any."""
    return [cell_row(cell, score) for score in cell.scores or [None]]


def speed_row(cell: Cell, columns: Sequence[SpeedColumn]) -> Row:
    """How fast the models of a cell are, in each setting that any were measured in; empty if none was.

    Seconds are those of `Speed`; `speed_A_...` where there are several settings.
    """
    row: Row = {}
    for column in columns:
        start = f"{SPEED}_{column.name}" if column.name else SPEED
        speed, setting = column.cells.get(cell.spec.cell), column.setting
        row |= {
            f"{start}_seconds": speed.seconds if speed else None,
            f"{start}_times_dense": speed.times if speed else None,
            f"{start}_engine": speed.engine if speed else None,
            f"{start}_seeds": list(speed.seeds) if speed else [],
            f"{start}_workload": column.workload if speed else None,
            f"{start}_cpu": setting.cpu if speed else None,
            f"{start}_threads": setting.threads if speed else None,
            f"{start}_clock": setting.clock if speed else None,
        }
    return row


def _spread_columns(name: str, values: Spread | None) -> Row:
    columns = {"n": 0, "mean": None, "max": None, "sd": None} if values is None else asdict(values)
    return {f"{name}_{key}": value for key, value in columns.items()}
