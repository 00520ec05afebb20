"""Vega-Lite specifications of the figures, without their rows, which the page filters and adds as `rows`.

Colors come from the theme (`dashboard.theme`), so that one specification serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import altair as alt

from hydraprune.dashboard.theme import COLORS

Spec = dict[str, Any]

ROWS = alt.NamedData("rows")
_DENSE = alt.NamedData("dense")
_SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")
# Dashes of curves, one for each time that the colors are used up.
_DASHES = ([1, 0], [8, 3], [2, 3])
# With more layers, cells are too narrow for numbers.
_NUMBERED_DEPTHS = 14
# Precisions of a bench -> how far a mark is filled; others are hollow.
_FILLS = {"fp32": 1.0, "bf16": 0.4}
_PHASES = ("train", "teacher", "eval", "other")


def against_sparsity(labels: Sequence[str]) -> Spec:
    """Score against sparsity: a point per seed, a large one for the mean, the dense models as a band.

    Args:
        labels: all labels of the page, for their colors.
    """
    color, shape = _color(labels), _shape(labels)
    x = alt.X("sparsity:Q", title="zeros / prunable weights", axis=alt.Axis(format="%", tickCount=6))
    x = x.scale(zero=False, nice=False, padding=28)
    y = alt.Y("score:Q", title=None, axis=alt.Axis(format=".3f", tickCount=6)).scale(zero=False, padding=18)
    known = [alt.Tooltip("label:N", title="pattern"), alt.Tooltip("seed:O")]
    known += [alt.Tooltip("score:Q", format=".4f"), alt.Tooltip("sparsity:Q", format=".2%")]
    base = alt.Chart(ROWS).encode(x=x, y=y, color=color, shape=shape)
    seeds = base.mark_point(size=46, opacity=0.55, filled=True).encode(tooltip=known)
    means = alt.Chart(ROWS).transform_aggregate(
        score="mean(score)", sparsity="mean(sparsity)", n="count()", groupby=["label"]
    )
    of_mean = [known[0], alt.Tooltip("n:Q", title="seeds"), *known[2:]]
    large = means.mark_point(size=190, filled=True, style="mean")
    large = large.encode(x=x, y=y, color=color, shape=shape, tooltip=of_mean)
    named = means.mark_text(dy=-17, fontWeight=600, style="named").encode(x=x, y=y, text="label:N", color=color)
    dense = alt.Chart(_DENSE)
    band = dense.mark_rect(style="band").encode(y=alt.Y("low:Q"), y2="high:Q")
    of_dense = [alt.Tooltip("mean:Q", format=".4f", title="dense, mean"), alt.Tooltip("n:Q", title="models")]
    line = dense.mark_rule(strokeDash=[5, 4], style="dense").encode(y="mean:Q", tooltip=of_dense)
    name = dense.mark_text(align="left", baseline="bottom", dx=6, dy=-3, style="dense")
    name = name.encode(x=alt.value(0), y="mean:Q", text="label:N")
    return finished_spec(alt.layer(band, line, name, seeds, large, named), height=320)


def against_latency(labels: Sequence[str], engines: Sequence[str], clock: str) -> Spec:
    """Score against latency: a point per side, on a stem from its model's fp32 score; dense baselines.

    Args:
        labels: all labels of the page, for their colors.
        engines: those of the figure, for their shapes.
        clock: `cpu` or `wall`.
    """
    time = "CPU time" if clock == "cpu" else "wall time"
    x = alt.X("ms:Q", title=f"milliseconds of {time} a call, median", axis=alt.Axis(format="~g"))
    x = x.scale(type="log", nice=False, padding=36)
    y = alt.Y("score:Q", title=None, axis=alt.Axis(format=".3f", tickCount=6)).scale(zero=False, padding=24)
    color, stroke = _color(labels), alt.Stroke("label:N", legend=None).scale(domain=domain(labels))
    shape = alt.Shape("engine:N", sort=None, legend=alt.Legend(orient="top", title=None))
    shape = shape.scale(domain=list(engines), range=list(_SHAPES[: len(engines)]))
    # Not a scale: Vega-Lite has no discrete one for opacity.
    tests = [{"test": f"datum.precision === '{name}'", "value": filled} for name, filled in _FILLS.items()]
    fill = alt.FillOpacityValue(0, condition=tests)
    tooltip = [alt.Tooltip("name:N", title="model"), alt.Tooltip("engine:N"), alt.Tooltip("precision:N")]
    tooltip += [alt.Tooltip("version:N"), alt.Tooltip("workload:N"), alt.Tooltip("ms:Q", format=".3~r")]
    tooltip += [alt.Tooltip("times_dense:Q", format=".2f", title="x dense fp32")]
    tooltip += [alt.Tooltip("score:Q", format=".4f"), alt.Tooltip("examples:Q", format=",d")]
    rows = alt.Chart(ROWS)
    reach = rows.transform_aggregate(ms="min(ms)", most="max(ms)", groupby=["name", "label", "level"])
    level = reach.mark_rule(opacity=0.35, strokeWidth=1.5).encode(x=x, x2="most:Q", y="level:Q", color=color)
    fastest = rows.transform_window(place="row_number()", sort=[alt.SortField("ms")], groupby=["name"])
    fastest = fastest.transform_filter("datum.place === 1").transform_calculate(top="max(datum.score, datum.level)")
    named = fastest.mark_text(dy=-15, fontWeight=600, style="named")
    named = named.encode(x=x, y="top:Q", text="name:N", color=color)
    stems = rows.mark_rule(opacity=0.35, strokeWidth=1.5).encode(x=x, y=y, y2="level:Q", color=color)
    points = rows.mark_point(size=95, filled=True, strokeWidth=1.6, opacity=1)
    points = points.encode(x=x, y=y, color=color, stroke=stroke, shape=shape, fillOpacity=fill, tooltip=tooltip)
    dense = alt.Chart(_DENSE)
    of_dense = [alt.Tooltip("label:N", title="best dense fp32"), alt.Tooltip("ms:Q", format=".3~r")]
    rule = dense.mark_rule(strokeDash=[5, 4], style="dense").encode(x=x, tooltip=of_dense)
    # Along the rule, so that it fits wherever that is.
    name = dense.mark_text(angle=270, align="left", baseline="bottom", dx=4, dy=-4, style="dense")
    name = name.encode(x=x, y=alt.value("height"), text="label:N")
    return finished_spec(alt.layer(rule, name, level, stems, points, named), height=340)


def over_steps(labels: Sequence[str], form: str, zero: bool) -> Spec:
    """A curve per config over optimizer steps: the mean over seeds, in a band from minimum to maximum.

    Args:
        form: the d3 number format of the axis.
        zero: whether the axis starts at 0.
    """
    # Whether it has a legend depends on the theme: the page has one for all curves, a single figure needs its own.
    color = alt.Color("hue:N").scale(domain=domain(labels))
    axis = alt.Axis(format=form, tickCount=5)
    y = alt.Y("mean:Q", title=None, axis=axis).scale(zero=zero)
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=5, format=",d"))
    rows = alt.Chart(ROWS).transform_calculate(hue="datum.pattern === 'dense' ? 'dense' : datum.label")
    # Faint where seeds are missing: the mean of the rest is not comparable.
    faint = alt.Opacity("whole:O", legend=None).scale(domain=[True, False], range=[1, 0.4])
    base = rows.encode(x=x, color=color, detail=["cell:N", "whole:O"])
    tooltip = [alt.Tooltip("label:N", title="pattern"), alt.Tooltip("step:Q", format=",d")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".4~f") for name in ("mean", "low", "high")]
    tooltip += [alt.Tooltip("n:Q", title="seeds")]
    area = base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=None, axis=axis), y2="high:Q")
    names = domain(labels)
    kinds = [_DASHES[i // COLORS % len(_DASHES)] if i else [5, 4] for i in range(len(names))]
    dashes = alt.StrokeDash("hue:N").scale(domain=names, range=kinds)
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dashes, opacity=faint)
    touch = base.mark_point(size=90, opacity=0, filled=True).encode(y=y, tooltip=tooltip)
    return finished_spec(alt.layer(area, line, touch), height=240)


def cost(labels: Sequence[str], published: bool) -> Spec:
    """The paired difference to the dense models and its interval, by config.

    Args:
        published: whether some rows have a published difference.
    """
    x = alt.X("difference:Q", title="sparse - dense", axis=alt.Axis(format="+.3f", tickCount=6))
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=230, domain=False, ticks=False))
    base = alt.Chart(ROWS).encode(y=y, color=_color(labels))
    tooltip = [alt.Tooltip("name:N", title="config"), alt.Tooltip("measure:N", title="metric")]
    tooltip += [alt.Tooltip("difference:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f", title="95 % from")]
    tooltip += [alt.Tooltip("high:Q", format="+.4f", title="to"), alt.Tooltip("n:Q", title="seeds")]
    tooltip += [alt.Tooltip("published:Q", format="+.4f")]
    zero = alt.Chart(_DENSE).mark_rule(style="dense", strokeDash=[5, 4]).encode(x="mean:Q")
    reach = base.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=alt.X("low:Q", title="sparse - dense"), x2="high:Q", tooltip=tooltip
    )
    mean = base.mark_point(filled=True, size=120, shape="circle", style="mean").encode(x=x, tooltip=tooltip)
    layers = [zero, reach, mean]
    if published:
        others = alt.Chart(ROWS).transform_filter("isValid(datum.published)")
        hollow = others.mark_point(size=90, shape="diamond", filled=False, strokeWidth=1.6, style="published")
        layers.append(hollow.encode(x="published:Q", y=y, tooltip=tooltip))
    return finished_spec(alt.layer(*layers), height=alt.Step(34))


@lru_cache
def per_layer(depths: int = 1) -> Spec:
    """Sparsity by role and depth of the layers.

    Args:
        depths: number of depths; if there are many, cells have no numbers.
    """
    x = alt.X("depth:N", title="layer", sort=None, axis=alt.Axis(labelAngle=0, orient="top", domain=False))
    y = alt.Y("role:N", title=None, sort=None, axis=alt.Axis(labelLimit=150, domain=False, ticks=False))
    tooltip = [alt.Tooltip("layer:N"), alt.Tooltip("sparsity:Q", format=".2%"), alt.Tooltip("n:Q", title="seeds")]
    base = alt.Chart(ROWS).encode(x=x, y=y, tooltip=tooltip)
    shade = alt.Color("sparsity:Q", legend=None).scale(domain=[0, 1])
    cells = base.mark_rect(cornerRadius=3, style="cell").encode(color=shade)
    text = base.encode(text=alt.Text("sparsity:Q", format=".0%"))
    # Where the ramps of both themes change from backgrounds for one text color to backgrounds for the other.
    low = text.transform_filter("datum.sparsity < 0.67").mark_text(fontSize=10, style="on-low")
    high = text.transform_filter("datum.sparsity >= 0.67").mark_text(fontSize=10, style="on-high")
    return finished_spec(alt.layer(cells, *([low, high] if depths <= _NUMBERED_DEPTHS else [])), height=alt.Step(25))


def mask(pattern: str, rows: int, columns: int, top: int = 0, left: int = 0) -> Spec:
    """A mask crop: a square per weight that is kept, with lines between the units of the pattern.

    Args:
        pattern: its name: 4x1, 2:4, 1xchannel.
        rows, columns: of the crop.
        top, left: position of the crop in the weight.
    """
    tall, wide = borders(pattern)
    return _mask(rows, columns, tall, wide, top % tall if tall else 0, left % wide if wide else 0)


# Altair takes milliseconds for a specification, and hundreds of masks share a few.
@lru_cache
def _mask(rows: int, columns: int, tall: int, wide: int, top: int, left: int) -> Spec:
    x = alt.X("column:Q", axis=None).scale(domain=[0, columns], nice=False)
    y = alt.Y("row:Q", axis=None).scale(domain=[0, rows], nice=False, reverse=True)
    kept = (
        alt.Chart(ROWS)
        .transform_calculate(right="datum.column + 1", below="datum.row + 1")
        .mark_rect(style="kept")
        .encode(x=x, x2="right:Q", y=y, y2="below:Q")
    )
    background = alt.Chart(alt.InlineData([{}])).mark_rect(style="mask")
    lines = []
    if tall:
        at = [{"at": i} for i in range(-top % tall, rows, tall) if i]
        lines.append(alt.Chart(alt.InlineData(at)).mark_rule(style="border").encode(y=alt.Y("at:Q", axis=None)))
    if wide:
        at = [{"at": i} for i in range(-left % wide, columns, wide) if i]
        lines.append(alt.Chart(alt.InlineData(at)).mark_rule(style="border").encode(x=alt.X("at:Q", axis=None)))
    return finished_spec(alt.layer(background, kept, *lines), height=200)


@lru_cache
def borders(pattern: str) -> tuple[int, int]:
    """Rows and columns between two borders of a pattern's units; 0: no borders, as for unknown patterns."""
    from hydraprune.sparsity import SparsityError, parse  # imports torch, which only pages with masks need

    try:
        return parse(pattern).borders
    except SparsityError:
        return 0, 0


def time_spent() -> Spec:
    """The time of each run by phase."""
    x = alt.X("seconds:Q", title="seconds", axis=alt.Axis(tickCount=6, format=",d"), stack=True)
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=230, domain=False, ticks=False))
    # Ordinal: the nominal colors are those of patterns.
    order = alt.Color("spent:O", title=None, sort=None, legend=alt.Legend(orient="top")).scale(domain=list(_PHASES))
    tooltip = [alt.Tooltip("name:N", title="run"), alt.Tooltip("spent:N", title="on")]
    tooltip += [alt.Tooltip("seconds:Q", format=",.1f"), alt.Tooltip("total:Q", format=",.1f")]
    bars = alt.Chart(ROWS).mark_bar(height={"band": 0.72}).encode(x=x, y=y, color=order, tooltip=tooltip)
    return finished_spec(bars.encode(order=alt.Order("place:Q")), height=alt.Step(19))


def domain(labels: Sequence[str]) -> list[str]:
    """The names that have a color, in the order of the theme's colors; dense models first.

    Each time that the colors are used up, an invisible name takes the first one: no pattern has the color of
    dense models.
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


def finished_spec(chart: Any, height: Any) -> Spec:
    """The specification of a chart, without its rows."""
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    # Altair's default config would override the theme.
    spec.pop("config", None)
    return spec
