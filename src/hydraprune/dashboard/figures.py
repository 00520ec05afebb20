"""The figures of the page: specifications, rows, captions and text alternatives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hydraprune.dashboard import charts
from hydraprune.dashboard.comparisons import Comparison, Row
from hydraprune.dashboard.figure import Figure
from hydraprune.dashboard.records import Records
from hydraprune.dashboard.study_figures import study_figures
from hydraprune.data.metric_direction import is_error


@dataclass(frozen=True)
class Section:
    """The figures of one model on one task."""

    comparison: Comparison
    figures: Sequence[Figure]


def over_all(records: Records) -> list[Figure]:
    """The figures about all runs, without empty ones."""
    drawn = (cost(records, of_errors=False), cost(records, of_errors=True), time_spent(records))
    return [figure for figure in drawn if figure is not None]


def sections(records: Records) -> list[Section]:
    """The figures of every model on every task."""
    return [
        Section(each, list(of_comparison(each, records.labels, number)))
        for number, each in enumerate(records.comparisons)
    ]


def all_figures(records: Records) -> list[Figure]:
    """Every figure of the page."""
    return [
        *over_all(records),
        *study_figures(records.studies),
        *(figure for section in sections(records) for figure in section.figures),
    ]


def cost(records: Records, of_errors: bool) -> Figure | None:
    """The differences to the dense models, over all models and tasks; None without any.

    Args:
        of_errors: of metrics of which a lower value is better, which have another scale; else of the others.
    """
    rows = []
    for cell in (cell for cell in records.cells if cell.spec.phase == "sparse" and cell.scores):
        score, row = cell.scores[0], cell.published
        if score.difference is None or is_error(score.metric) != of_errors:
            continue
        low, high = score.interval or (None, None)
        published = row.difference if row is not None and row.metric == score.metric else None
        rows.append(
            {
                "task": cell.spec.task,
                "model": cell.spec.model,
                "pattern": cell.spec.pattern,
                "label": cell.label,
                "name": config_name({"task": cell.spec.task, "model": cell.spec.model, "label": cell.label}, records),
                # Not named metric: the choice of a metric does not filter these rows.
                "measure": score.metric,
                "difference": score.difference.mean,
                "low": low,
                "high": high,
                "n": score.difference.n,
                "published": published,
            }
        )
    if not rows:
        return None
    beside = any(row["published"] is not None for row in rows)
    summary = [
        f"{row['name']}: {row['measure']} {row['difference']:+.4f} over {_seeds(int(str(row['n'])))}" for row in rows
    ]
    return Figure(
        "cost-errors" if of_errors else "cost",
        "Cost of sparsity: perplexity and loss, lower is better" if of_errors else "Cost of sparsity",
        "Sparse model minus dense model of the same seed, in the task's headline metric: the mean, and its 95 % "
        "confidence interval if there are at least two seeds." + beside * " Hollow diamond: the published difference.",
        "; ".join(summary),
        charts.cost(records.labels, beside),
        rows,
        dense=[{"mean": 0}],
    )


def time_spent(records: Records) -> Figure | None:
    """The time of all finished runs by phase; None without one."""
    rows = []
    for run in (run for run in records.runs if run["total"]):
        known = {part: float(run[part] or 0.0) for part in ("train", "teacher", "eval")}
        known["other"] = max(0.0, float(run["total"]) - sum(known.values()))
        for place, (part, seconds) in enumerate(known.items()):
            rows.append(
                {key: run[key] for key in ("task", "model", "pattern", "seed", "total")}
                | {"name": run_name(run, records), "spent": part, "seconds": round(seconds, 3), "place": place}
            )
    if not rows:
        return None
    total = sum(row["seconds"] for row in rows)
    return Figure(
        "time",
        "Time by phase",
        "Seconds of each run for training steps, teacher outputs and evaluation; other: loading, encoding, saving.",
        f"{len(rows) // 4} runs took {total:,.0f} seconds in total",
        charts.time_spent(),
        rows,
    )


def of_comparison(comparison: Comparison, labels: Sequence[str], number: int) -> Iterator[Figure]:
    """The figures of one model on one task, without empty ones.

    Args:
        labels: all labels of the page, for their colors.
        number: of the comparison, for unique ids.
    """
    name = f"{_safe(comparison.task)}-{_safe(comparison.model)}-{number}"
    if comparison.points:
        yield Figure(
            f"accuracy-{name}",
            "Score against sparsity",
            "All finished runs: a small mark per seed, a large one for the mean over the seeds of a pattern. Dashed: "
            "the mean of the dense models that they started from, in a band from minimum to maximum.",
            "; ".join(_means(comparison)),
            charts.against_sparsity(labels),
            comparison.points,
            comparison.dense,
            metric=comparison.metric,
        )
    yield from _speeds(comparison, labels, name)
    yield from _curves(comparison, labels, name)
    yield from _layers(comparison, name)
    yield from _masks(comparison, name)


def _speeds(comparison: Comparison, labels: Sequence[str], name: str) -> Iterator[Figure]:
    for number, found in enumerate(comparison.speeds):
        metric = (
            comparison.metric
            if any(row["metric"] == comparison.metric for row in found.points)
            else comparison.metrics[0]
        )
        shown = [row for row in found.points if (row["metric"], row["workload"]) == (metric, found.workloads[0])]
        yield Figure(
            f"latency-{name}-{number}",
            "Score against latency",
            f"Measured on {found.setting.text}. A point per engine and precision, with the score of that very engine, "
            "on a stem from its model's score in fp32. Full: fp32, light: bf16, hollow: int8. Dashed: the fastest "
            "dense engine in fp32, with the model that others are compared with.",
            f"{found.workloads[0]}: {'; '.join(_fastest(shown))}",
            charts.against_latency(labels, found.engines, found.setting.clock),
            found.points,
            found.baselines,
            metric=metric,
            workload=found.workloads[0],
        )


def _fastest(rows: Sequence[Row]) -> Iterator[str]:
    for sides in _by(rows, "name"):
        best = min(sides, key=lambda row: float(row["ms"]))
        times = "" if best["times_dense"] is None else f", {best['times_dense']:.2f} times as fast as dense fp32"
        yield (
            f"{best['name']}: {best['ms']:.3g} ms in {best['engine']} {best['precision']}{times}, "
            f"{best['metric']} {best['score']:.4f}"
        )


# For each curve: title, caption, number format of the axis, whether the axis starts at 0.
_CURVES = {
    "score": ("Score", "After each epoch; dashed: the training of the dense models.", ".3f", False),
    "loss": ("Training loss", "Not comparable with the loss of a dense model, which has no teacher.", ".2~f", True),
    "sparsity": ("Sparsity", "Zeros / prunable weights during the sparsity schedule.", ".0%", True),
}


def _curves(comparison: Comparison, labels: Sequence[str], name: str) -> Iterator[Figure]:
    for key, (title, caption, form, zero) in _CURVES.items():
        if rows := comparison.curves[key]:
            yield Figure(
                f"{key}-{name}",
                f"{title} over steps",
                f"{caption} Line: the mean over seeds; band: minimum to maximum."
                + " Faint: some seeds are missing." * any(not row["whole"] for row in rows),
                "; ".join(_ends(rows, comparison.metric)),
                charts.over_steps(labels, form, zero),
                rows,
                metric=comparison.metric if key == "score" else None,
                kind="third",
            )


def _layers(comparison: Comparison, name: str) -> Iterator[Figure]:
    for layers in _by(comparison.layers, "cell"):
        first = layers[0]
        least, most = min(layers, key=_sparsity), max(layers, key=_sparsity)
        yield Figure(
            f"layers-{name}-{_safe(first['pattern'])}-{first['cell']}",
            str(first["label"]),
            "Share of zeros in each Linear layer, the mean over seeds.",
            f"from {least['sparsity']:.1%} in {least['layer']} to {most['sparsity']:.1%} in {most['layer']}",
            charts.per_layer(len({row["depth"] for row in layers})),
            layers,
            pattern=str(first["pattern"]),
            kind="layers",
        )


def _masks(comparison: Comparison, name: str) -> Iterator[Figure]:
    for number, row in enumerate(comparison.masks):
        lines: list[str] = row["kept"]
        tall, wide = len(lines), len(lines[0])
        kept = [(i, j) for i, line in enumerate(lines) for j, bit in enumerate(line) if bit == "1"]
        place = f"rows {row['top']} to {row['top'] + tall - 1}, columns {row['left']} to {row['left'] + wide - 1}"
        part = "" if row["part"] in (row["shape"], row["pattern"]) else f", {row['part']} ({row['shape']})"
        yield Figure(
            f"mask-{name}-{number}-{_safe(row['part'])}",
            f"{row['label']}{part}",
            f"{row['weight']}, {place}, seed {row['seed']}. A square is a weight that is kept"
            + (f"; lines separate the units of {row['shape']}." if any(charts.borders(str(row["shape"]))) else "."),
            f"{len(kept)} of {tall * wide} weights are kept here; {row['sparsity']:.1%} of the whole layer is zero",
            charts.mask(str(row["shape"]), tall, wide, row["top"], row["left"]),
            [{"row": i, "column": j} for i, j in kept],
            pattern=str(row["pattern"]),
            shape=tall / wide,
            kind="mask",
        )


def _safe(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name.replace(":", "of"))


def run_name(run: Row, records: Records) -> str:
    """The name of a run, unique on the page."""
    return f"{config_name(run, records)} seed {run['seed']}"


def config_name(config: Row, records: Records) -> str:
    """The name of a config, unique on the page."""
    return " ".join([*_subject(config["task"], config["model"], records), str(config["label"])])


def _subject(task: str, model: str, records: Records) -> list[str]:
    """Task and model, each if the page has several."""
    several = [len({getattr(comparison, key) for comparison in records.comparisons}) > 1 for key in ("task", "model")]
    return [name for name, shown in zip((task, model), several, strict=True) if shown]


def _means(comparison: Comparison) -> Iterator[str]:
    for dense in comparison.dense:
        if dense["metric"] == comparison.metric:
            yield f"{dense['label']}: mean {comparison.metric} {dense['mean']:.4f} over {_seeds(dense['n'])}"
    for rows in _by([row for row in comparison.points if row["metric"] == comparison.metric], "label"):
        score, sparsity = (sum(row[key] for row in rows) / len(rows) for key in ("score", "sparsity"))
        name = f"{rows[0]['label']}: mean {comparison.metric}"
        yield f"{name} {score:.4f} at {sparsity:.1%} zeros over {_seeds(len(rows))}"


def _ends(rows: Sequence[Row], metric: str) -> Iterator[str]:
    for curve in _by([row for row in rows if row.get("metric", metric) == metric], "cell"):
        last, most = curve[-1], max(row["n"] for row in curve)
        left = f", with {last['n']} of {_seeds(most)}" if last["n"] < most else ""
        yield f"{last['label']} ends at {last['mean']:.4g} after {last['step']:,} steps{left}"


def _by(rows: Iterable[Row], key: str) -> Iterable[list[Row]]:
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found.values()


def _sparsity(row: Row) -> float:
    return float(row["sparsity"])


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"
