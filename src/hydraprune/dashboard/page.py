"""Renders the page as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from hydraprune import __version__
from hydraprune.dashboard import figures, theme
from hydraprune.dashboard.charts import domain
from hydraprune.dashboard.comparisons import Row
from hydraprune.dashboard.figure import Figure
from hydraprune.dashboard.figures import config_name
from hydraprune.dashboard.packing import LARGE, packed
from hydraprune.dashboard.records import Records, records
from hydraprune.dashboard.study_figures import study_figures
from hydraprune.data.metric_direction import is_error
from hydraprune.errors import UserError
from hydraprune.results.matrix import Cell, Score
from hydraprune.results.number_format import NONE, figure, milliseconds, percent, ratio, signed
from hydraprune.results.rows import SEED_COLUMNS, cell_row, speed_row
from hydraprune.results.speed import speed_columns
from hydraprune.results.tables import verdict
from hydraprune.utils.files import write_text

NAME = "dashboard.html"


def write_page(folders: Sequence[Path], out: Path | None = None, title: str | None = None) -> Path:
    """Write a page with the results of all runs below `folders`.

    Args:
        out: the HTML file; None: dashboard.html in the first folder.
        title: of the page; None: the first folder's name.

    Returns:
        The file, written atomically; equal reports give equal bytes.

    Raises:
        UserError: a folder does not exist, or the file exists and is not a dashboard, or cannot be written.
    """
    place = folders[0] / NAME if out is None else out
    if place.is_dir():
        raise UserError("is a folder", key=f"--out {place}", cure=f"give a file, as in --out {place / NAME}")
    if place.is_file() and not _is_page(place):
        raise UserError("exists and is not a dashboard", key=f"--out {place}", cure="give another FILE")
    page = html(records(folders), title or folders[0].resolve().name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, page)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise UserError(reason, key=str(place), cure="give --out FILE") from None
    return place


def _is_page(file: Path) -> bool:
    try:
        return 'name="generator" content="hydraprune ' in file.read_text(encoding="utf-8", errors="replace")[:1000]
    except OSError:
        return False


def html(found: Records, title: str) -> str:
    """The text of the page."""
    over_all, sections = figures.over_all(found), figures.sections(found)
    of_studies = study_figures(found.studies)
    shown = [*over_all, *of_studies, *(drawn for section in sections for drawn in section.figures)]
    columns = speed_columns(found.cells)
    rows = [
        {**_matrix_row(cell, score), **speed_row(cell, columns)}
        for cell in found.cells
        for score in cell.scores or [None]
    ]
    themes = {"light": theme.light(), "dark": theme.dark()}
    data = {
        "figures": {drawn.id: _figure_data(drawn) for drawn in shown},
        "tables": {"matrix": rows, "runs": found.runs},
        "themes": {name: [colors, theme.with_legend(colors)] for name, colors in themes.items()},
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(figure=figure, signed=signed, percent=percent, seconds=_seconds)
    environment.filters.update(milliseconds=milliseconds, ratio=ratio)
    text = environment.from_string(_asset("page.html")).render(
        title=title,
        version=__version__,
        style=Markup(_asset("page.css")),
        script=Markup(_in_script(_asset("page.js"))),
        library=Markup(_in_script(_library())),
        data=Markup(_json(data)),
        choices=_choices(found),
        tiles=_tiles(found, rows),
        matrix=rows,
        speeds=columns,
        not_measured=found.not_measured,
        runs=found.runs,
        run_names={run["hash"]: figures.run_name(run, found) for run in found.runs},
        over_all={drawn.id: drawn for drawn in over_all},
        of_studies=of_studies,
        sections=sections,
        failures=found.failures,
        swatches={label: place for place, label in enumerate(domain(found.labels))},
    )
    return packed(text) if len(text) > LARGE else text


def _figure_data(drawn: Figure) -> dict[str, Any]:
    return {"spec": drawn.spec, "rows": drawn.rows, "dense": drawn.dense, "shape": drawn.shape}


def _choices(found: Records) -> dict[str, list[str]]:
    """The filters of the page: tasks, models and patterns, each if there are several."""
    by_key = {key: list(dict.fromkeys(getattr(cell.spec, key) for cell in found.cells)) for key in ("task", "model")}
    by_key["pattern"] = list(dict.fromkeys(cell.spec.pattern for cell in found.cells if cell.spec.phase == "sparse"))
    return {key: values for key, values in by_key.items() if len(values) > 1}


def _tiles(found: Records, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(value, description) of the main results at the top of the page."""
    finished = sum(run["status"] == "finished" for run in found.runs)
    tiles = [(f"{finished} of {len(found.runs)}" if finished < len(found.runs) else str(finished), "runs finished")]
    headline = [
        row for row in rows if row["phase"] == "sparse" and row["headline"] and row["drop_of_means"] is not None
    ]
    if headline:
        best = max(headline, key=_gain)
        tiles.append(
            (
                percent(best["drop_of_means"]),
                f"{best['metric']} relative to dense, best pattern: {config_name(best, found)}",
            )
        )
        close = [row for row in headline if _gain(row) >= -0.01 and row["prunable"] is not None]
        if close:
            far = max(close, key=lambda row: float(row["prunable"]))
            tiles.append(
                (
                    f"{far['prunable']:.1%}",
                    f"sparsity with less than 1 % loss of {far['metric']}: {config_name(far, found)}",
                )
            )
        patterns_ok = [
            run["pattern_ok"] for run in found.runs if run["pattern_ok"] is not None and run["phase"] == "sparse"
        ]
        tiles.append((f"{sum(patterns_ok)} of {len(patterns_ok)}", "saved models obey their pattern"))
    if found.failures:
        tiles.append((str(len(found.failures)), "failed or unfinished"))
    return tiles


def _gain(row: Row) -> float:
    """How much better a config's mean is than that of its dense models, relative to it."""
    drop = float(row["drop_of_means"])
    return -drop if is_error(str(row["metric"])) else drop


# Columns of `cell_row` -> their names on the page.
_RENAMED = {
    "prunable_sparsity": "prunable",
    "difference_mean": "difference",
    "difference_low": "low",
    "difference_high": "high",
}
_ON_THE_PAGE = (
    *("cell", "phase", "task", "model", "pattern", "ratio", "prunable", "metric"),
    *("sparse_mean", "sparse_max", "sparse_sd", "dense_mean", "dense_max", "difference", "low", "high"),
    *("drop", "drop_of_means"),
)
_PUBLISHED = ("ratio", "dense_mean", "dense_max", "sparse_mean", "sparse_max", "drop", "difference")


def _matrix_row(cell: Cell, score: Score | None) -> Row:
    """A row of the results table, with unrounded numbers."""
    values = {_RENAMED.get(name, name): value for name, value in cell_row(cell, score).items()}
    if cell.spec.phase == "dense":  # its own scores are those of a dense model
        values |= {f"dense_{key}": values.get(f"sparse_{key}") for key in ("mean", "max")}
        values |= {f"sparse_{key}": None for key in ("mean", "max", "sd")}
    published = cell.published if score and cell.published and cell.published.metric == score.metric else None
    return {
        **{name: values.get(name) for name in _ON_THE_PAGE},
        **{name: " ".join(map(str, values[name])) for name in SEED_COLUMNS},
        "label": cell.label,
        "finished": len(cell.finished),
        "wanted": len(cell.finished) + len(cell.failed) + len(cell.missing),
        # Less than the finished seeds if a score is not finite.
        "n": len(score.sparse) if score else 0,
        "headline": bool(score) and score == cell.scores[0],
        **{f"published_{name}": getattr(published, name, None) for name in _PUBLISHED},
        "verdict": verdict(score, published, cell.typed) if published else None,
    }


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"


@lru_cache
def _asset(name: str) -> str:
    return (files("hydraprune.dashboard") / "assets" / name).read_text(encoding="utf-8")


@lru_cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, from vl-convert."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _in_script(code: str) -> str:
    """Code that cannot end the script element that it is put into."""
    return re.sub(
        r"</(?=script)|<(?=!--)", lambda match: match.group().replace("<", "\\x3c"), code, flags=re.IGNORECASE
    )


def _json(value: Any) -> str:
    """JSON that cannot end the script element that it is put into."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
