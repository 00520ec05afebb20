"""The figures of the dashboard as SVG and PNG files, for papers and slides."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import vl_convert

from hydraprune.dashboard import theme
from hydraprune.dashboard.charts import Spec
from hydraprune.dashboard.comparisons import Row
from hydraprune.dashboard.figure import Figure
from hydraprune.dashboard.figures import all_figures
from hydraprune.dashboard.records import records
from hydraprune.errors import UserError

# Width of a figure in pixels, by its kind.
_WIDTHS = {"wide": 860, "third": 420, "layers": 420, "mask": 420}


def write_figures(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write every figure of the page as SVG and PNG.

    Args:
        out: their folder; created if needed.

    Raises:
        UserError: a folder does not exist, or a file cannot be written.
    """
    found = records(folders)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for figure in all_figures(found):
            spec = json.dumps(_standalone(figure))
            svg, png = out / f"{figure.id}.svg", out / f"{figure.id}.png"
            image = vl_convert.vegalite_to_svg(spec)
            svg.write_text(image, encoding="utf-8")
            png.write_bytes(vl_convert.svg_to_png(image, scale=2.0))
            written += [svg, png]
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise UserError(reason, key=str(out), cure="give another --figures FOLDER") from None
    return written


def _standalone(figure: Figure) -> Spec:
    """The specification with its rows, of the headline metric and the first workload, on white."""
    chosen = {"metric": figure.metric, "workload": figure.workload}

    def measured(rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if all(row.get(kind) in (None, value) for kind, value in chosen.items())]

    width = _WIDTHS[figure.kind]
    height = figure.spec["height"] if figure.shape is None else round(width * figure.shape)
    datasets = {**figure.spec.get("datasets", {}), "rows": measured(figure.rows), "dense": measured(figure.dense)}
    config = {**theme.with_legend(theme.light()), "background": "white", "padding": 12}
    # vl-convert has none of the browser's fonts.
    config["font"] = "sans-serif"
    title = ": ".join(filter(None, (figure.title, ", ".join(filter(None, chosen.values())))))
    size = {"width": width, "height": height}
    spec = _with_legend(figure.spec, datasets["rows"])
    return {**spec, **size, "title": title, "datasets": datasets, "config": config}


def _with_legend(spec: Spec, rows: Sequence[Row]) -> Spec:
    """The specification with a legend of what it shows."""
    drawn = {"dense" if row.get("pattern") == "dense" else row.get("label") for row in rows}
    spec = copy.deepcopy(spec)
    for layer in spec.get("layer", ()):
        for channel in ("color", "strokeDash"):
            encoding = layer.get("encoding", {}).get(channel, {})
            if encoding.get("field") == "hue":
                encoding["legend"] = {"values": [name for name in encoding["scale"]["domain"] if name in drawn]}
    return spec
