"""Figures as Vega-Lite specifications. Their rows come later, under the name `rows`: the page filters them.

Colours are the theme's (`dashboard.theme`), so that one specification serves light and dark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt

from hydraprune.dashboard.theme import COLORS

Spec = dict[str, Any]

_ROWS = alt.NamedData("rows")
_DENSE = alt.NamedData("dense")
_SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")
# Of curves, each time that the colours begin anew.
_DASHES = ([1, 0], [8, 3], [2, 3])
# With more a cell is narrower than its figure.
_NUMBERED_DEPTHS = 14
_PARTS = ("train", "teacher", "eval", "other")


def against_sparsity(labels: Sequence[str]) -> Spec:
    """Score against sparsity: a point per seed, a large one for their mean, the dense models as a band.

    Args:
        labels: all that the page tells apart by colour, in a fixed order.
    """
    color, shape = _color(labels), _shape(labels)
    x = alt.X("sparsity:Q", title="zeros / prunable weights", axis=alt.Axis(format="%", tickCount=6))
    x = x.scale(zero=False, nice=False, padding=28)
    y = alt.Y("score:Q", title=None, axis=alt.Axis(format=".3f", tickCount=6)).scale(zero=False, padding=18)
    known = [alt.Tooltip("label:N", title="pattern"), alt.Tooltip("seed:O")]
    known += [alt.Tooltip("score:Q", format=".4f"), alt.Tooltip("sparsity:Q", format=".2%")]
    base = alt.Chart(_ROWS).encode(x=x, y=y, color=color, shape=shape)
    seeds = base.mark_point(size=46, opacity=0.55, filled=True).encode(tooltip=known)
    means = alt.Chart(_ROWS).transform_aggregate(
        score="mean(score)", sparsity="mean(sparsity)", n="count()", groupby=["label"]
    )
    told = [known[0], alt.Tooltip("n:Q", title="seeds"), *known[2:]]
    large = means.mark_point(size=190, filled=True, style="mean")
    large = large.encode(x=x, y=y, color=color, shape=shape, tooltip=told)
    named = means.mark_text(dy=-17, fontWeight=600, style="named").encode(x=x, y=y, text="label:N", color=color)
    dense = alt.Chart(_DENSE)
    strip = dense.mark_rect(style="band").encode(y=alt.Y("low:Q"), y2="high:Q")
    theirs = [alt.Tooltip("mean:Q", format=".4f", title="dense, mean"), alt.Tooltip("n:Q", title="models")]
    line = dense.mark_rule(strokeDash=[5, 4], style="dense").encode(y="mean:Q", tooltip=theirs)
    word = dense.mark_text(align="left", baseline="bottom", dx=6, dy=-3, style="dense")
    word = word.encode(x=alt.value(0), y="mean:Q", text="label:N")
    return _spec(alt.layer(strip, line, word, seeds, large, named), height=320)


def over_steps(labels: Sequence[str], form: str, zero: bool) -> Spec:
    """A curve per config over optimizer steps, the mean over seeds in a band from the least to the greatest.

    Args:
        form: of the numbers at the axis, as d3 has it.
        zero: whether the axis begins at 0.
    """
    # Its legend is the theme's matter: the page has one for all curves, a figure on its own needs one.
    color = alt.Color("hue:N").scale(domain=domain(labels))
    axis = alt.Axis(format=form, tickCount=5)
    y = alt.Y("mean:Q", title=None, axis=axis).scale(zero=zero)
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=5, format=",d"))
    rows = alt.Chart(_ROWS).transform_calculate(hue="datum.pattern === 'dense' ? 'dense' : datum.label")
    # Where seeds are missing the rest goes on faintly: another mean than that of all.
    faint = alt.Opacity("whole:O", legend=None).scale(domain=[True, False], range=[1, 0.4])
    base = rows.encode(x=x, color=color, detail=["cell:N", "whole:O"])
    told = [alt.Tooltip("label:N", title="pattern"), alt.Tooltip("step:Q", format=",d")]
    told += [alt.Tooltip(f"{name}:Q", format=".4~f") for name in ("mean", "low", "high")]
    told += [alt.Tooltip("n:Q", title="seeds")]
    area = base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=None, axis=axis), y2="high:Q")
    names = domain(labels)
    kinds = [_DASHES[i // COLORS % len(_DASHES)] if i else [5, 4] for i in range(len(names))]
    dashes = alt.StrokeDash("hue:N").scale(domain=names, range=kinds)
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dashes, opacity=faint)
    touch = base.mark_point(size=90, opacity=0, filled=True).encode(y=y, tooltip=told)
    return _spec(alt.layer(area, line, touch), height=240)


def cost(labels: Sequence[str], published: bool) -> Spec:
    """What sparsity costs, config by config: paired difference and its interval.

    Args:
        published: whether some rows have a published difference to stand beside.
    """
    x = alt.X("difference:Q", title="sparse - dense", axis=alt.Axis(format="+.3f", tickCount=6))
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=230, domain=False, ticks=False))
    base = alt.Chart(_ROWS).encode(y=y, color=_color(labels))
    told = [alt.Tooltip("name:N", title="config"), alt.Tooltip("measure:N", title="metric")]
    told += [alt.Tooltip("difference:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f", title="95 % from")]
    told += [alt.Tooltip("high:Q", format="+.4f", title="to"), alt.Tooltip("n:Q", title="seeds")]
    told += [alt.Tooltip("published:Q", format="+.4f")]
    zero = alt.Chart(_DENSE).mark_rule(style="dense", strokeDash=[5, 4]).encode(x="mean:Q")
    reach = base.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=alt.X("low:Q", title="sparse - dense"), x2="high:Q", tooltip=told
    )
    mean = base.mark_point(filled=True, size=120, shape="circle", style="mean").encode(x=x, tooltip=told)
    layers = [zero, reach, mean]
    if published:
        theirs = alt.Chart(_ROWS).transform_filter("isValid(datum.published)")
        hollow = theirs.mark_point(size=90, shape="diamond", filled=False, strokeWidth=1.6, style="published")
        layers.append(hollow.encode(x="published:Q", y=y, tooltip=told))
    return _spec(alt.layer(*layers), height=alt.Step(34))


def per_layer(depths: int = 1) -> Spec:
    """Sparsity by what a layer does and how deep it lies.

    Args:
        depths: how many there are; where they are many, the figures themselves find no room.
    """
    x = alt.X("depth:N", title="layer", sort=None, axis=alt.Axis(labelAngle=0, orient="top", domain=False))
    y = alt.Y("role:N", title=None, sort=None, axis=alt.Axis(labelLimit=150, domain=False, ticks=False))
    told = [alt.Tooltip("layer:N"), alt.Tooltip("sparsity:Q", format=".2%"), alt.Tooltip("n:Q", title="seeds")]
    base = alt.Chart(_ROWS).encode(x=x, y=y, tooltip=told)
    shade = alt.Color("sparsity:Q", legend=None).scale(domain=[0, 1])
    cells = base.mark_rect(cornerRadius=3, style="cell").encode(color=shade)
    text = base.encode(text=alt.Text("sparsity:Q", format=".0%"))
    # Where both themes' ramps pass from grounds for the one text to grounds for the other.
    low = text.transform_filter("datum.sparsity < 0.67").mark_text(fontSize=10, style="on-low")
    high = text.transform_filter("datum.sparsity >= 0.67").mark_text(fontSize=10, style="on-high")
    return _spec(alt.layer(cells, *([low, high] if depths <= _NUMBERED_DEPTHS else [])), height=alt.Step(25))


def mask(pattern: str, rows: int, columns: int, top: int = 0, left: int = 0) -> Spec:
    """A part of a mask, a square per weight that is kept, with lines at the pattern's own borders.

    Args:
        pattern: by its name: 4x1, 2:4, 1xchannel.
        rows, columns: of the picture.
        top, left: its place in the weight, from whose first row and column the borders are counted.
    """
    x = alt.X("column:Q", axis=None).scale(domain=[0, columns], nice=False)
    y = alt.Y("row:Q", axis=None).scale(domain=[0, rows], nice=False, reverse=True)
    kept = (
        alt.Chart(_ROWS)
        .transform_calculate(right="datum.column + 1", below="datum.row + 1")
        .mark_rect(style="kept")
        .encode(x=x, x2="right:Q", y=y, y2="below:Q")
    )
    ground = alt.Chart(alt.InlineData([{}])).mark_rect(style="mask")
    tall, wide = borders(pattern)
    lines = []
    if tall:
        at = [{"at": i} for i in range(-top % tall, rows, tall) if i]
        lines.append(alt.Chart(alt.InlineData(at)).mark_rule(style="border").encode(y=alt.Y("at:Q", axis=None)))
    if wide:
        at = [{"at": i} for i in range(-left % wide, columns, wide) if i]
        lines.append(alt.Chart(alt.InlineData(at)).mark_rule(style="border").encode(x=alt.X("at:Q", axis=None)))
    return _spec(alt.layer(ground, kept, *lines), height=200)


def borders(pattern: str) -> tuple[int, int]:
    """Rows and columns between two borders of a pattern that are worth a line; 0: none."""
    if match := re.fullmatch(r"\d+:(\d+)", pattern):
        return 0, int(match.group(1))
    if match := re.fullmatch(r"(\d+)x(\d+)", pattern):
        tall, wide = int(match.group(1)), int(match.group(2))
        return tall if tall > 1 else 0, wide if wide > 1 else 0
    return 0, 0


def time_spent() -> Spec:
    """Where the time of each run went."""
    x = alt.X("seconds:Q", title="seconds", axis=alt.Axis(tickCount=6, format=",d"), stack=True)
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=230, domain=False, ticks=False))
    # Ordinal: the theme keeps the nominal colours for patterns.
    order = alt.Color("spent:O", title=None, sort=None, legend=alt.Legend(orient="top")).scale(domain=list(_PARTS))
    told = [alt.Tooltip("name:N", title="run"), alt.Tooltip("spent:N", title="on")]
    told += [alt.Tooltip("seconds:Q", format=",.1f"), alt.Tooltip("total:Q", format=",.1f")]
    bars = alt.Chart(_ROWS).mark_bar(height={"band": 0.72}).encode(x=x, y=y, color=order, tooltip=told)
    return _spec(bars.encode(order=alt.Order("place:Q")), height=alt.Step(19))


def domain(labels: Sequence[str]) -> list[str]:
    """What has a colour, in the order of the theme's: dense models first, whether they are in a figure or not.

    Where the colours begin anew, a blank takes the place of the dense models': no pattern has theirs.
    """
    found = ["dense"]
    for label in labels:
        if len(found) % COLORS == 0:
            found.append("\N{ZERO WIDTH SPACE}" * (len(found) // COLORS))
        found.append(label)
    return found


def _color(labels: Sequence[str]) -> alt.Color:
    return alt.Color("label:N", legend=None).scale(domain=domain(labels))


def _shape(labels: Sequence[str]) -> alt.Shape:
    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(len(labels))]
    return alt.Shape("label:N", legend=None).scale(domain=list(labels), range=shapes)


def _spec(chart: Any, height: Any) -> Spec:
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    # Altair's own look would stand in the way of the theme.
    spec.pop("config", None)
    return spec
