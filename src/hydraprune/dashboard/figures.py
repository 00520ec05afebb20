"""Records -> the figures of the page: specification, rows, and what they say in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hydraprune.dashboard import charts
from hydraprune.dashboard.charts import Spec
from hydraprune.dashboard.records import Records
from hydraprune.dashboard.studies import Row, Study

# Pixels that are kept beside a figure's own height: for an axis and its title, for a legend above it, and for a
# title below a mask. A few more than they take, so that fonts of another machine find room as well.
_AXIS, _LEGEND, _MASK_TITLE = 66, 26, 21


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        id: of its element, and the name of its files.
        title: what it shows.
        reading: how it is to be read.
        says: what it says, for those who do not see it.
        rows: what is drawn, and what can be downloaded; filtered by task, model, pattern and metric.
        dense: of the dense models, which no filter takes away.
        pattern: of a figure that is about one pattern alone.
        metric: the one that is shown first, of rows that have several.
        shape: height / width, where that matters.
    """

    id: str
    title: str
    reading: str
    says: str
    spec: Spec
    rows: Sequence[Row]
    dense: Sequence[Row] = ()
    pattern: str | None = None
    metric: str | None = None
    shape: float | None = None
    kind: str = "wide"

    @property
    def room(self) -> str:
        """CSS for the place that it takes before it is drawn, so that nothing moves when it is."""
        if self.shape is not None:
            return f"--room: calc({self.shape:.4f} * 100% + {_MASK_TITLE}px)"
        height = self.spec["height"]
        if isinstance(height, dict):
            height = height["step"] * len({row.get("name", row.get("role")) for row in self.rows})
        legend = (self.spec.get("encoding", {}).get("color") or {}).get("legend")
        return f"--room: {height + _AXIS + (_LEGEND if legend else 0)}px"

    @property
    def measured(self) -> bool:
        """Whether its rows are of a metric, which the reader chooses."""
        return any("metric" in row for row in self.rows)


@dataclass(frozen=True)
class Section:
    """One model on one task, and its figures."""

    study: Study
    figures: Sequence[Figure]


def over_all(records: Records) -> list[Figure]:
    """The figures about all runs that have anything to show."""
    return [figure for figure in (cost(records), time_spent(records)) if figure is not None]


def sections(records: Records) -> list[Section]:
    """The figures of every model on every task."""
    return [
        Section(study, list(of_study(study, records.labels, number))) for number, study in enumerate(records.studies)
    ]


def all_figures(records: Records) -> list[Figure]:
    """Every figure of the page."""
    return [*over_all(records), *(figure for section in sections(records) for figure in section.figures)]


def cost(records: Records) -> Figure | None:
    """What sparsity costs, over all models and tasks; None where nothing was compared."""
    rows = []
    for cell in (cell for cell in records.cells if cell.spec.phase == "sparse" and cell.scores):
        score, row = cell.scores[0], cell.published
        if score.difference is None:
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
                # Of the headline metric only: the metric chosen elsewhere does not take it away.
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
    says = [
        f"{row['name']}: {row['measure']} {row['difference']:+.4f} over {_seeds(int(str(row['n'])))}" for row in rows
    ]
    return Figure(
        "cost",
        "What sparsity costs",
        "Sparse model minus the dense model of the same seed, by the task's headline metric: the mean, and its 95 % "
        "interval where there are two seeds or more." + beside * " A hollow diamond is the published difference.",
        "; ".join(says),
        charts.cost(records.labels, beside),
        rows,
        dense=[{"mean": 0}],
    )


def time_spent(records: Records) -> Figure | None:
    """Where the time of all finished runs went; None without one."""
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
        "Where the time went",
        "Seconds of each run: training steps, asking the teacher, evaluating; other is loading, encoding, saving.",
        f"{len(rows) // 4} runs took {total:,.0f} seconds together",
        charts.time_spent(),
        rows,
    )


def of_study(study: Study, labels: Sequence[str], number: int) -> Iterator[Figure]:
    """The figures of one model on one task that have anything to show.

    Args:
        labels: all that the page tells apart by colour.
        number: of the study, for names that differ.
    """
    name = f"{_plain(study.task)}-{_plain(study.model)}-{number}"
    if study.points:
        yield Figure(
            f"accuracy-{name}",
            "Score against sparsity",
            "Every finished run: a small mark per seed, a large one for the mean of a pattern's seeds. Dashed: the "
            "dense models that they started from, the band from the least to the greatest.",
            "; ".join(_means(study)),
            charts.against_sparsity(labels),
            study.points,
            study.dense,
            metric=study.metric,
        )
    yield from _curves(study, labels, name)
    yield from _layers(study, name)
    yield from _masks(study, name)


# Of each curve: title, how to read it, the axis's number format, whether the axis begins at 0.
_CURVES = {
    "score": ("Score", "After each epoch; the dense models' own training dashed.", ".3f", False),
    "loss": ("Training loss", "A dense model's loss is of another kind: it has no teacher.", ".2~f", True),
    "sparsity": ("Sparsity", "Zeros / prunable weights, while the sparsity schedule runs.", ".0%", True),
}


def _curves(study: Study, labels: Sequence[str], name: str) -> Iterator[Figure]:
    for key, (title, reading, form, zero) in _CURVES.items():
        if rows := study.curves[key]:
            yield Figure(
                f"{key}-{name}",
                f"{title} over steps",
                f"{reading} The line is the mean over seeds, the band from the least to the greatest."
                + " Faint: not all seeds are there." * any(not row["whole"] for row in rows),
                "; ".join(_ends(rows, study.metric)),
                charts.over_steps(labels, form, zero),
                rows,
                metric=study.metric if key == "score" else None,
                kind="third",
            )


def _layers(study: Study, name: str) -> Iterator[Figure]:
    for layers in _by(study.layers, "cell"):
        first = layers[0]
        least, most = min(layers, key=_sparsity), max(layers, key=_sparsity)
        yield Figure(
            f"layers-{name}-{_plain(first['pattern'])}-{first['cell']}",
            str(first["label"]),
            "Share of zeros in each Linear layer, the mean over seeds.",
            f"from {least['sparsity']:.1%} in {least['layer']} to {most['sparsity']:.1%} in {most['layer']}",
            charts.per_layer(len({row["depth"] for row in layers})),
            layers,
            pattern=str(first["pattern"]),
            kind="layers",
        )


def _masks(study: Study, name: str) -> Iterator[Figure]:
    for number, row in enumerate(study.masks):
        lines: list[str] = row["kept"]
        tall, wide = len(lines), len(lines[0])
        kept = [(i, j) for i, line in enumerate(lines) for j, bit in enumerate(line) if bit == "1"]
        place = f"rows {row['top']} to {row['top'] + tall - 1}, columns {row['left']} to {row['left'] + wide - 1}"
        part = "" if row["part"] in (row["shape"], row["pattern"]) else f", {row['part']} ({row['shape']})"
        yield Figure(
            f"mask-{name}-{number}-{_plain(row['part'])}",
            f"{row['label']}{part}",
            f"{row['weight']}, {place}, seed {row['seed']}. A square is a weight that is kept"
            + (f"; lines are borders of {row['shape']}." if any(charts.borders(str(row["shape"]))) else "."),
            f"{len(kept)} of {tall * wide} weights are kept here, {row['sparsity']:.1%} of the whole layer are zero",
            charts.mask(str(row["shape"]), tall, wide, row["top"], row["left"]),
            [{"row": i, "column": j} for i, j in kept],
            pattern=str(row["pattern"]),
            shape=tall / wide,
            kind="mask",
        )


def _plain(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name.replace(":", "of"))


def run_name(run: Row, records: Records) -> str:
    """What a run is called among all of the page."""
    return f"{config_name(run, records)} seed {run['seed']}"


def config_name(config: Row, records: Records) -> str:
    """What a config is called among all of the page."""
    return " ".join([*_subject(config["task"], config["model"], records), str(config["label"])])


def _subject(task: str, model: str, records: Records) -> list[str]:
    """Task and model, where the page has several."""
    several = [len({getattr(study, key) for study in records.studies}) > 1 for key in ("task", "model")]
    return [name for name, said in zip((task, model), several, strict=True) if said]


def _means(study: Study) -> Iterator[str]:
    for dense in study.dense:
        if dense["metric"] == study.metric:
            yield f"{dense['label']}: mean {study.metric} {dense['mean']:.4f} over {_seeds(dense['n'])}"
    for rows in _by([row for row in study.points if row["metric"] == study.metric], "label"):
        score, sparsity = (sum(row[key] for row in rows) / len(rows) for key in ("score", "sparsity"))
        yield f"{rows[0]['label']}: mean {study.metric} {score:.4f} at {sparsity:.1%} zeros over {_seeds(len(rows))}"


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
