"""The page's figures as files of their own, for papers and slides."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import vl_convert

from hydraprune.dashboard import theme
from hydraprune.dashboard.charts import Spec
from hydraprune.dashboard.figures import Figure, all_figures
from hydraprune.dashboard.records import records
from hydraprune.dashboard.studies import Row
from hydraprune.errors import UserError

# Pixels of a figure's width, by its kind.
_WIDTHS = {"wide": 860, "third": 420, "layers": 420, "mask": 420}


def write_figures(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write every figure of the page as SVG and PNG.

    Args:
        out: their folder, made if need be.

    Raises:
        UserError: a folder is not there, or a file cannot be written.
    """
    found = records(folders)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for figure in all_figures(found):
            spec = json.dumps(_whole(figure))
            picture = out / f"{figure.id}.svg"
            picture.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
            picture.with_suffix(".png").write_bytes(vl_convert.vegalite_to_png(spec, scale=2.0))
            written += [picture, picture.with_suffix(".png")]
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}); give another --figures FOLDER"
        ) from None
    return written


def _whole(figure: Figure) -> Spec:
    """A specification with its rows, of the headline metric, on white."""

    def measured(rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if row.get("metric") in (None, figure.metric)]

    width = _WIDTHS[figure.kind]
    height = figure.spec["height"] if figure.shape is None else round(width * figure.shape)
    datasets = {**figure.spec.get("datasets", {}), "rows": measured(figure.rows), "dense": measured(figure.dense)}
    look = {**theme.alone(theme.light()), "background": "white", "padding": 12}
    # Fonts of a browser's own are not to be had here.
    look["font"] = "sans-serif"
    title = figure.title if figure.metric is None else f"{figure.title}: {figure.metric}"
    size = {"width": width, "height": height}
    spec = _with_legend(figure.spec, datasets["rows"])
    return {**spec, **size, "title": title, "datasets": datasets, "config": look}


def _with_legend(spec: Spec, rows: Sequence[Row]) -> Spec:
    """The legend that a theme turns on, of what is drawn alone."""
    drawn = {"dense" if row.get("pattern") == "dense" else row.get("label") for row in rows}
    spec = copy.deepcopy(spec)
    for layer in spec.get("layer", ()):
        for channel in ("color", "strokeDash"):
            encoding = layer.get("encoding", {}).get(channel, {})
            if encoding.get("field") == "hue":
                encoding["legend"] = {"values": [name for name in encoding["scale"]["domain"] if name in drawn]}
    return spec
