"""The results matrix as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hydraprune.data.metric_direction import is_error
from hydraprune.results.escaping import in_markdown, in_spreadsheet
from hydraprune.results.matrix import Cell, Score
from hydraprune.results.number_format import NONE, figure, milliseconds, percent, ratio, signed
from hydraprune.results.reference import Published
from hydraprune.results.rows import SPEED, Row, cell_row, cell_rows, speed_row
from hydraprune.results.speed import SpeedColumn, speed_columns
from hydraprune.results.statistics import CONFIDENCE

SCHEMA = 1


def markdown(
    cells: Sequence[Cell],
    failures: Sequence[tuple[str, str]] = (),
    not_measured: Sequence[tuple[str, str]] = (),
) -> str:
    """The whole report: results in the published form, by seed, beside the published figures; dense models; failures.

    Args:
        failures: (what failed, why), in the order in which they are listed.
        not_measured: (bench, why) of measurements that belong to no run.
    """
    columns = speed_columns(cells)
    sparse = [cell for cell in cells if cell.spec.phase == "sparse"]
    dense = [cell for cell in cells if cell.spec.phase == "dense"]
    parts = ["# Results"]
    if sparse:
        parts += [_results(sparse, columns), "## Seed by seed", _paired(sparse)]
        parts += ["## Beside the published figures", _beside(sparse)]
    if dense:
        parts += ["## Dense models", _dense(dense, columns)]
    if notes := _notes(cells, columns, not_measured):
        parts.append(notes)
    if failures:
        parts += ["## Failed", "\n".join(f"- {in_markdown(what)}: {in_markdown(why)}" for what, why in failures)]
    if not cells and not failures:
        parts.append("No runs here yet.")
    return "\n\n".join(parts) + "\n"


def _results(cells: Sequence[Cell], columns: Sequence[SpeedColumn]) -> str:
    """The table in the published form, and how fast the models are where that was measured."""
    header = ["model", "task", "pattern", "ratio", "metric", "dense mean / max", "sparse mean / max", "relative drop"]
    rows = [
        [
            *_names(cell),
            figure(row["ratio"] if score else None),
            in_markdown(score.metric) if score else NONE,
            _mean_max(row, "dense"),
            _mean_max(row, "sparse"),
            percent(row.get("drop")),
            *_speeds(cell, columns),
            _count(cell, score),
        ]
        for cell, score, row in _scored(cells)
    ]
    return aligned([*header, *_speed_header(columns), "n"], rows)


def _speed_header(columns: Sequence[SpeedColumn]) -> list[str]:
    return [f"{name} ({column.name})" if column.name else name for column in columns for name in ("ms", "x dense")]


def _speeds(cell: Cell, columns: Sequence[SpeedColumn]) -> list[str]:
    texts = []
    for column in columns:
        speed = column.cells.get(cell.spec.cell)
        texts.append(NONE if speed is None else in_markdown(f"{milliseconds(speed.seconds)} ({speed.engine})"))
        texts.append(NONE if speed is None else ratio(speed.times))
    return texts


def _paired(cells: Sequence[Cell]) -> str:
    """The differences to the dense models of the same seeds."""
    header = ["model", "task", "pattern", "metric", "seeds", "dense sd", "sparse sd", "paired difference"]
    header += [f"{CONFIDENCE:.0%} interval", "drop of means", "best epoch mean / max (chosen on the evaluation data)"]
    rows = [
        [
            *_names(cell),
            in_markdown(score.metric),
            " ".join(map(str, score.sparse)),
            figure(row["dense_sd"]),
            figure(row["sparse_sd"]),
            signed(row["difference_mean"]),
            _interval(row["difference_low"], row["difference_high"]),
            percent(row["drop_of_means"]),
            _mean_max(row, "best_epoch"),
        ]
        for cell, score, row in _scored(cells)
        if score is not None
    ]
    return aligned(header, rows)


def _beside(cells: Sequence[Cell]) -> str:
    header = ["model", "task", "pattern", "metric", "ratio", "published", "drop", "published"]
    header += ["difference of means", "published", "published lies in our interval"]
    rows = []
    for cell in cells:
        published = cell.published
        if published is None:
            rows.append([*_names(cell), *[NONE] * 7, "nothing published"])
            continue
        score = next((score for score in cell.scores if score.metric == published.metric), None)
        row = cell_row(cell, score)
        rows.append(
            [
                *_names(cell),
                in_markdown(published.metric),
                figure(row["ratio"]),
                figure(published.ratio),
                percent(row.get("drop")),
                percent(published.drop),
                signed(row.get("difference_mean")),
                signed(published.difference),
                in_markdown(verdict(score, published, cell.typed)),
            ]
        )
    return aligned(header, rows)


def verdict(score: Score | None, row: Published, typed: Sequence[str]) -> str:
    """Whether the published difference lies in the 95 % interval of ours, with reservations.

    Args:
        typed: overrides that make ours another experiment, such as fewer epochs.
    """
    interval = score.interval if score else None
    if interval is None:
        verdict = "unknown: an interval needs two seeds"
    else:
        verdict = "yes" if interval[0] <= row.difference <= interval[1] else "no"
    reservations = [f"the published row {row.doubt}"] if row.doubt else []
    reservations += [f"ours was run with {' '.join(typed)}"] if typed else []
    return f"{verdict} (but {', and '.join(reservations)})" if reservations else verdict


def _dense(cells: Sequence[Cell], columns: Sequence[SpeedColumn]) -> str:
    scored = _scored(cells)
    rows = [
        [
            *_names(cell),
            in_markdown(score.metric),
            _mean_max(row, "sparse"),
            figure(row["sparse_sd"]),
            *_speeds(cell, columns),
            _count(cell, score),
        ]
        for cell, score, row in scored
        if score is not None
    ]
    without = [cell for cell, score, _ in scored if score is None]
    rows += [[*_names(cell), *[NONE] * 3, *_speeds(cell, columns), _count(cell, None)] for cell in without]
    header = ["model", "task", "pattern", "metric", "mean / max", "sd", *_speed_header(columns), "n"]
    return aligned(header, rows)


def _scored(cells: Sequence[Cell]) -> list[tuple[Cell, Score | None, Row]]:
    """Each cell with each of its metrics; without one where no run is finished."""
    return [(cell, score, cell_row(cell, score)) for cell in cells for score in cell.scores or [None]]


def _notes(cells: Sequence[Cell], columns: Sequence[SpeedColumn], not_measured: Sequence[tuple[str, str]]) -> str:
    lines = [
        "Mean and max are over seeds, of the evaluation after the last step. Relative drop is "
        "max sparse / max dense - 1, as published; the paired difference is sparse - dense of the same seed, its "
        "interval Student's t.",
        "Ratio: zeros / weights of all Linear layers, heads included, counted in the saved files.",
    ]
    sparse = [cell for cell in cells if cell.spec.phase == "sparse"]
    if not sparse:
        lines = ["Mean and max are over seeds, of the evaluation after the last step."]
    if any(is_error(score.metric) for cell in sparse for score in cell.scores):
        lines.append("Perplexity and loss: lower is better; their relative drop is min sparse / min dense - 1.")
    if any(cell.spec.task == "mrpc" for cell in sparse):
        lines.append("MRPC: the published column holds F1, though its table calls it accuracy; ours shows both.")
    if any(cell.missing or cell.failed for cell in cells):
        lines.append("n of m: m were planned or started; the others failed, were interrupted or have not run.")
    for cell in cells:
        if cell.broken:
            seeds = ", ".join(map(str, cell.broken))
            lines.append(f"The saved model does NOT have its pattern: {' '.join(_names(cell))}, seed {seeds}.")
    lines += [in_markdown(column.note) for column in columns]
    lines += [f"{in_markdown(what)}: {in_markdown(why)}." for what, why in not_measured]
    return "\n".join(f"- {line}" for line in lines) if cells else ""


def comma_separated(cells: Sequence[Cell]) -> str:
    """One line per cell and metric; numbers in full. No text is a formula to a spreadsheet."""
    out = io.StringIO()
    columns = speed_columns(cells)
    rows = [{**row, **speed_row(cell, columns)} for cell in cells for row in cell_rows(cell)]
    found = dict.fromkeys(name for row in rows for name in row)
    names = sorted(found, key=lambda name: name.startswith(SPEED))  # at the end, also if the first row has no score
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        joined = {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()}
        writer.writerow({key: in_spreadsheet(v) if isinstance(v, str) else v for key, v in joined.items()})
    return out.getvalue()


def as_json(cells: Sequence[Cell], failures: Sequence[tuple[str, str]] = ()) -> str:
    """All figures, with the values of every seed."""
    values = {
        "schema": SCHEMA,
        "confidence": CONFIDENCE,
        "cells": [_nested(cell) for cell in cells],
        "failures": [{"what": what, "why": why} for what, why in failures],
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def _nested(cell: Cell) -> dict[str, Any]:
    published = cell.published
    return {
        **cell_row(cell, None),
        "published": None
        if published is None
        else {**asdict(published), "drop": published.drop, "difference": published.difference},
        "scores": [_nested_score(score, cell_row(cell, score)) for score in cell.scores],
        **({"measured": [asdict(found) for found in cell.measured]} if cell.measured else {}),
    }


def _nested_score(score: Score, row: Row) -> dict[str, Any]:
    def group(prefix: str, *names: str) -> Row:
        return {name: row[f"{prefix}_{name}"] for name in ("n", "mean", "max", "sd", *names)}

    plain = ("drop", "drop_of_means", "published_drop", "published_difference", "published_inside")
    return {
        "metric": score.metric,
        "sparse": group("sparse"),
        "dense": group("dense"),
        "best_epoch": group("best_epoch"),
        "difference": group("difference", "low", "high"),
        **{name: row[name] for name in plain},
        "values": {"sparse": dict(score.sparse), "dense": dict(score.dense), "best_epoch": dict(score.best)},
    }


def _names(cell: Cell) -> list[str]:
    return [in_markdown(name) for name in (cell.spec.model, cell.spec.task, cell.label)]


def _count(cell: Cell, score: Score | None) -> str:
    n = len(score.sparse) if score else 0
    wanted = len(cell.finished) + len(cell.failed) + len(cell.missing)
    if n == wanted:
        return str(n)
    not_finite = () if score is None else tuple(seed for seed in cell.finished if seed not in score.sparse)
    kinds = {"failed": cell.failed, "missing": cell.missing, "not a number": not_finite}
    left = [f"{kind} {' '.join(map(str, seeds))}" for kind, seeds in kinds.items() if seeds]
    return f"**{n} of {wanted}** ({', '.join(left)})" if left else f"{n} of {wanted}"


def _mean_max(row: Row, name: str) -> str:
    mean = row.get(f"{name}_mean")
    return NONE if mean is None else f"{mean:.4f} / {row[f'{name}_max']:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return NONE if low is None else f"[{low:+.4f}, {high:+.4f}]"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for a terminal too."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in lines) for i in range(len(header))]
    shown = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in lines]
    return "\n".join([shown[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *shown[1:]])
