"""The results matrix as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydraprune.results.matrix import Cell, Score
from hydraprune.results.number_format import NONE, figure, percent, signed
from hydraprune.results.reference import Published
from hydraprune.results.statistics import CONFIDENCE, Spread, spread

SCHEMA = 1


def markdown(cells: Sequence[Cell], failures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report: the table in the published form, what lies behind it, dense runs, failures.

    Args:
        failures: (what failed, why), in the order in which they are to be listed.
    """
    sparse = [cell for cell in cells if cell.spec.phase == "sparse"]
    dense = [cell for cell in cells if cell.spec.phase == "dense"]
    parts = ["# Results"]
    if sparse:
        parts += [_results(sparse), "## Seed by seed", _paired(sparse)]
        parts += ["## Beside the published figures", _beside(sparse)]
    if dense:
        parts += ["## Dense models", _dense(dense)]
    if notes := _notes(cells):
        parts.append(notes)
    if failures:
        parts += ["## Failed", "\n".join(f"- {what}: {why}" for what, why in failures)]
    if not cells and not failures:
        parts.append("No runs here yet.")
    return "\n\n".join(parts) + "\n"


def _results(cells: Sequence[Cell]) -> str:
    """In the published form."""
    header = ["model", "task", "pattern", "ratio", "metric", "dense mean / max", "sparse mean / max", "relative drop"]
    rows = []
    for cell in cells:
        for score in cell.scores:
            paired = _paired_dense(score)
            rows.append(
                [
                    *_names(cell),
                    figure(cell.ratio.mean if cell.ratio else None),
                    score.metric,
                    _mean_max(paired),
                    _mean_max(spread(list(score.sparse.values()))),
                    percent(score.drop),
                    _count(cell, score),
                ]
            )
        if not cell.scores:
            rows.append([*_names(cell), NONE, NONE, NONE, NONE, NONE, _count(cell, None)])
    return _table([*header, "n"], rows)


def _paired(cells: Sequence[Cell]) -> str:
    """What the means are made of."""
    header = ["model", "task", "pattern", "metric", "seeds", "dense sd", "sparse sd", "paired difference"]
    header += [f"{CONFIDENCE:.0%} interval", "drop of means", "best epoch mean / max (chosen on the evaluation data)"]
    rows = []
    for cell in cells:
        for score in cell.scores:
            dense, difference = _paired_dense(score), score.difference
            rows.append(
                [
                    *_names(cell),
                    score.metric,
                    " ".join(map(str, score.sparse)),
                    figure(dense.sd if dense else None),
                    figure(_sd(spread(list(score.sparse.values())))),
                    signed(difference.mean if difference else None),
                    _interval(score.interval),
                    percent(score.mean_drop),
                    _mean_max(spread(list(score.best.values()))),
                ]
            )
    return _table(header, rows)


def _beside(cells: Sequence[Cell]) -> str:
    header = ["model", "task", "pattern", "metric", "ratio", "published", "drop", "published"]
    header += ["difference of means", "published", "published lies in our interval"]
    rows = []
    for cell in cells:
        row = cell.published
        score = next((score for score in cell.scores if row is not None and score.metric == row.metric), None)
        if row is None:
            rows.append([*_names(cell), *[NONE] * 7, "nothing published"])
            continue
        difference = score.difference if score else None
        rows.append(
            [
                *_names(cell),
                row.metric,
                figure(cell.ratio.mean if cell.ratio else None),
                figure(row.ratio),
                percent(score.drop if score else None),
                percent(row.drop),
                signed(difference.mean if difference else None),
                signed(row.difference),
                verdict(score, row, cell.typed),
            ]
        )
    return _table(header, rows)


def verdict(score: Score | None, row: Published, typed: Sequence[str]) -> str:
    """Whether the published difference lies in the 95 % interval of ours, and what is to be kept in mind."""
    interval = score.interval if score else None
    if interval is None:
        verdict = "unknown: an interval needs two seeds"
    else:
        verdict = "yes" if interval[0] <= row.difference <= interval[1] else "no"
    buts = [f"the published row {row.doubt}"] if row.doubt else []
    # Another evaluation split or fewer epochs make another experiment; the reader is to see it.
    buts += [f"ours was run with {' '.join(typed)}"] if typed else []
    return f"{verdict} (but {', and '.join(buts)})" if buts else verdict


def _dense(cells: Sequence[Cell]) -> str:
    rows = [
        [*_names(cell), score.metric, _mean_max(found), figure(_sd(found)), _count(cell, score)]
        for cell in cells
        for score in cell.scores
        for found in [spread(list(score.sparse.values()))]
    ]
    rows += [[*_names(cell), *[NONE] * 3, _count(cell, None)] for cell in cells if not cell.scores]
    return _table(["model", "task", "pattern", "metric", "mean / max", "sd", "n"], rows)


def _notes(cells: Sequence[Cell]) -> str:
    lines = [
        "Mean and max are over seeds, of the evaluation after the last step. Relative drop is "
        "max sparse / max dense - 1, as published; the paired difference is sparse - dense of the same seed, its "
        "interval Student's t.",
        "Ratio: zeros / weights of all Linear layers, heads included, counted in the saved files.",
    ]
    sparse = [cell for cell in cells if cell.spec.phase == "sparse"]
    if not sparse:
        lines = ["Mean and max are over seeds, of the evaluation after the last step."]
    if any(cell.spec.task == "mrpc" for cell in sparse):
        lines.append("MRPC: the published column holds F1, though its table calls it accuracy; ours shows both.")
    if any(cell.missing or cell.failed for cell in cells):
        lines.append("n of m: m were planned or begun; the others failed, were cut or have not run.")
    for cell in cells:
        if cell.broken:
            seeds = ", ".join(map(str, cell.broken))
            lines.append(f"The saved model does NOT obey its pattern: {' '.join(_names(cell))}, seed {seeds}.")
    return "\n".join(f"- {line}" for line in lines) if cells else ""


def comma_separated(cells: Sequence[Cell]) -> str:
    """One line per cell and metric; numbers in full."""
    out = io.StringIO()
    rows = [row for cell in cells for row in _flat(cell)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(cell: Cell) -> Iterable[dict[str, Any]]:
    told = _told(cell)
    scores = told.pop("scores")
    above = {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in told.items() if key != "published"}
    for score in scores or [{}]:
        row = dict(above)
        for key, value in score.items():
            if isinstance(value, Mapping) and key != "values":
                row |= {f"{key}_{name}": number for name, number in value.items()}
            elif key != "values":
                row[key] = value
        yield row


def as_json(cells: Sequence[Cell], failures: Sequence[tuple[str, str]] = ()) -> str:
    """All figures, the values of every seed among them."""
    values = {
        "schema": SCHEMA,
        "confidence": CONFIDENCE,
        "cells": [_told(cell) for cell in cells],
        "failures": [{"what": what, "why": why} for what, why in failures],
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def _told(cell: Cell) -> dict[str, Any]:
    spec, row = cell.spec, cell.published
    return {
        **{name: getattr(spec, name) for name in ("cell", "phase", "task", "model", "pattern", "target_sparsity")},
        "differs": cell.differs,
        "precision": spec.precision,
        "recipe": cell.recipe,
        **{name: list(getattr(cell, name)) for name in ("typed", "finished", "failed", "missing", "broken")},
        "ratio": cell.ratio.mean if cell.ratio else None,
        "prunable_sparsity": cell.prunable.mean if cell.prunable else None,
        "published": None if row is None else {**asdict(row), "drop": row.drop, "difference": row.difference},
        "scores": [_told_score(score, row) for score in cell.scores],
    }


def _told_score(score: Score, row: Published | None) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    mine = row if row is not None and row.metric == score.metric else None
    return {
        "metric": score.metric,
        "sparse": _spread_of(spread(list(score.sparse.values()))),
        "dense": _spread_of(_paired_dense(score)),
        "best_epoch": _spread_of(spread(list(score.best.values()))),
        "difference": {**_spread_of(score.difference), "low": low, "high": high},
        "drop": score.drop,
        "drop_of_means": score.mean_drop,
        "published_drop": None if mine is None else mine.drop,
        "published_difference": None if mine is None else mine.difference,
        "published_inside": None if mine is None or low is None else low <= mine.difference <= (high or low),
        "values": {"sparse": dict(score.sparse), "dense": dict(score.dense), "best_epoch": dict(score.best)},
    }


def _spread_of(found: Spread | None) -> dict[str, float | None]:
    return asdict(found) if found is not None else {"n": 0, "mean": None, "max": None, "sd": None}


def _paired_dense(score: Score) -> Spread | None:
    return spread([score.dense[seed] for seed in score.differences])


def _names(cell: Cell) -> list[str]:
    return [cell.spec.model, cell.spec.task, cell.label]


def _count(cell: Cell, score: Score | None) -> str:
    n = len(score.sparse) if score else 0
    wanted = len(cell.finished) + len(cell.failed) + len(cell.missing)
    if n == wanted:
        return str(n)
    odd = () if score is None else tuple(seed for seed in cell.finished if seed not in score.sparse)
    kinds = {"failed": cell.failed, "missing": cell.missing, "not a number": odd}
    left = [f"{kind} {' '.join(map(str, seeds))}" for kind, seeds in kinds.items() if seeds]
    return f"**{n} of {wanted}** ({', '.join(left)})" if left else f"{n} of {wanted}"


def _sd(found: Spread | None) -> float | None:
    return found.sd if found else None


def _mean_max(found: Spread | None) -> str:
    return NONE if found is None else f"{found.mean:.4f} / {found.max:.4f}"


def _interval(found: tuple[float, float] | None) -> str:
    return NONE if found is None else f"[{found[0]:+.4f}, {found[1]:+.4f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for a terminal too."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in lines) for i in range(len(header))]
    shown = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in lines]
    return "\n".join([shown[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *shown[1:]])
