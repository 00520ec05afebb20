"""Records and figures -> one HTML file that asks nobody for anything."""

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
from hydraprune.dashboard.figures import Figure, config_name
from hydraprune.dashboard.records import Records, records
from hydraprune.dashboard.studies import Row
from hydraprune.errors import UserError
from hydraprune.results.matrix import Cell, Score
from hydraprune.results.number_format import NONE, figure, percent, signed
from hydraprune.results.statistics import spread
from hydraprune.results.tables import verdict
from hydraprune.utils.files import write_text

NAME = "dashboard.html"


def write_page(folders: Sequence[Path], out: Path | None = None, title: str | None = None) -> Path:
    """Draw all runs below `folders` on one page.

    Args:
        out: the file; None: dashboard.html in the first folder.
        title: of the page; None: the first folder's name.

    Returns:
        The file, written whole or not at all; the same reports give the same bytes.

    Raises:
        UserError: a folder is not there, or the file holds something else or cannot be written.
    """
    place = folders[0] / NAME if out is None else out
    if place.is_file() and not _is_page(place):
        raise UserError(f"--out {place}: is there already, and no page of ours; give another FILE")
    page = html(records(folders), title or folders[0].resolve().name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, page)
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror or error}); give --out FILE") from None
    return place


def _is_page(file: Path) -> bool:
    try:
        return 'name="generator" content="hydraprune ' in file.read_text(encoding="utf-8", errors="replace")[:1000]
    except OSError:
        return False


def html(found: Records, title: str) -> str:
    """The page."""
    over_all, sections = figures.over_all(found), figures.sections(found)
    shown = [*over_all, *(drawn for section in sections for drawn in section.figures)]
    rows = [_matrix_row(cell, score) for cell in found.cells for score in cell.scores or [None]]
    looks = {"light": theme.light(), "dark": theme.dark()}
    data = {
        "figures": {drawn.id: _told(drawn) for drawn in shown},
        "tables": {"matrix": rows, "runs": found.runs},
        "themes": {name: [look, theme.alone(look)] for name, look in looks.items()},
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(figure=figure, signed=signed, percent=percent, seconds=_seconds)
    return environment.from_string(_asset("page.html")).render(
        title=title,
        version=__version__,
        style=Markup(_asset("page.css")),
        script=Markup(_in_script(_asset("page.js"))),
        library=Markup(_in_script(_library())),
        data=Markup(_json(data)),
        choices=_choices(found),
        tiles=_tiles(found, rows),
        matrix=rows,
        runs=found.runs,
        run_names={run["hash"]: figures.run_name(run, found) for run in found.runs},
        over_all={drawn.id: drawn for drawn in over_all},
        sections=sections,
        failures=found.failures,
        swatches={label: place for place, label in enumerate(domain(found.labels))},
    )


def _told(drawn: Figure) -> dict[str, Any]:
    return {"spec": drawn.spec, "rows": drawn.rows, "dense": drawn.dense, "shape": drawn.shape}


def _choices(found: Records) -> dict[str, list[str]]:
    """What can be filtered by: what differs between the runs."""
    by_key = {key: list(dict.fromkeys(getattr(cell.spec, key) for cell in found.cells)) for key in ("task", "model")}
    by_key["pattern"] = list(dict.fromkeys(cell.spec.pattern for cell in found.cells if cell.spec.phase == "sparse"))
    return {key: values for key, values in by_key.items() if len(values) > 1}


def _tiles(found: Records, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(figure, what it is): what a person wants to know first."""
    finished = sum(run["status"] == "finished" for run in found.runs)
    tiles = [(f"{finished} of {len(found.runs)}" if finished < len(found.runs) else str(finished), "runs finished")]
    headline = [
        row for row in rows if row["phase"] == "sparse" and row["headline"] and row["drop_of_means"] is not None
    ]
    if headline:
        best = max(headline, key=lambda row: float(row["drop_of_means"]))
        tiles.append(
            (percent(best["drop_of_means"]), f"{best['metric']} beside dense at best: {config_name(best, found)}")
        )
        close = [row for row in headline if row["drop_of_means"] >= -0.01 and row["prunable"] is not None]
        if close:
            far = max(close, key=lambda row: float(row["prunable"]))
            tiles.append(
                (f"{far['prunable']:.1%}", f"zeros at less than 1 % of {far['metric']} lost: {config_name(far, found)}")
            )
        obey = [run["pattern_ok"] for run in found.runs if run["pattern_ok"] is not None and run["phase"] == "sparse"]
        tiles.append((f"{sum(obey)} of {len(obey)}", "saved models obey their pattern"))
    if found.failures:
        tiles.append((str(len(found.failures)), "failed or unfinished"))
    return tiles


def _matrix_row(cell: Cell, score: Score | None) -> Row:
    """A line of the results matrix, figures in full."""
    row: Row = {name: getattr(cell.spec, name) for name in ("cell", "phase", "task", "model", "pattern")}
    row["label"] = cell.label
    row |= {
        "ratio": cell.ratio.mean if cell.ratio else None,
        "prunable": cell.prunable.mean if cell.prunable else None,
        "finished": len(cell.finished),
        "wanted": len(cell.finished) + len(cell.failed) + len(cell.missing),
        "failed": " ".join(map(str, cell.failed)),
        "missing": " ".join(map(str, cell.missing)),
        "broken": " ".join(map(str, cell.broken)),
    }
    mine = spread(list(score.sparse.values())) if score else None
    dense = spread([score.dense[seed] for seed in score.differences]) if score else None
    if cell.spec.phase == "dense":
        mine, dense = None, mine
    published = cell.published if score and cell.published and cell.published.metric == score.metric else None
    low, high = (score.interval if score else None) or (None, None)
    return row | {
        "metric": score.metric if score else None,
        # Of the values that the figures are made of; a score may be no number.
        "n": len(score.sparse) if score else 0,
        "headline": bool(score) and score == cell.scores[0],
        "sparse_mean": mine.mean if mine else None,
        "sparse_max": mine.max if mine else None,
        "sparse_sd": mine.sd if mine else None,
        "dense_mean": dense.mean if dense else None,
        "dense_max": dense.max if dense else None,
        "difference": score.difference.mean if score and score.difference else None,
        "low": low,
        "high": high,
        "drop": score.drop if score else None,
        "drop_of_means": score.mean_drop if score else None,
        "published_ratio": published.ratio if published else None,
        "published_dense_mean": published.dense_mean if published else None,
        "published_dense_max": published.dense_max if published else None,
        "published_sparse_mean": published.sparse_mean if published else None,
        "published_sparse_max": published.sparse_max if published else None,
        "published_drop": published.drop if published else None,
        "published_difference": published.difference if published else None,
        "verdict": verdict(score, published, cell.typed) if published else None,
    }


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"


@lru_cache
def _asset(name: str) -> str:
    return (files("hydraprune.dashboard") / "assets" / name).read_text(encoding="utf-8")


@lru_cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, as vl-convert carries them."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _in_script(code: str) -> str:
    """Code that does not end the script element it is put into."""
    return re.sub(
        r"</(?=script)|<(?=!--)", lambda match: match.group().replace("<", "\\x3c"), code, flags=re.IGNORECASE
    )


def _json(value: Any) -> str:
    """JSON for a script element, whatever words are in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
