"""Vega-Lite specifications of the figures of studies, without their rows."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from hydraprune.dashboard.charts import ROWS, Spec, finished_spec


def pareto_front(first: str, second: str, searched: Sequence[str]) -> Spec:
    """The trials of a study with two objectives: those on the Pareto front filled and joined by a line.

    Args:
        first, second: labels of the objectives, on the y and x axis.
        searched: keys, for the tooltip.
    """
    x = alt.X("x:Q", title=second, axis=alt.Axis(tickCount=6)).scale(zero=False, padding=24)
    y = alt.Y("y:Q", title=first, axis=alt.Axis(tickCount=6)).scale(zero=False, padding=18)
    tooltip = _of_trial(searched, [alt.Tooltip("y:Q", title=first), alt.Tooltip("x:Q", title=second)])
    front = alt.Chart(ROWS).transform_filter("datum.front")
    joined = front.mark_line(strokeWidth=1.5, opacity=0.6).encode(x=x, y=y, order="x:Q")
    others = alt.Chart(ROWS).transform_filter("!datum.front").mark_point(size=60, opacity=0.55)
    best = front.mark_point(size=110, filled=True, opacity=1)
    named = front.mark_text(dy=-13, fontWeight=600).encode(x=x, y=y, text="trial:O")
    points = [layer.encode(x=x, y=y, tooltip=tooltip) for layer in (others, best)]
    return finished_spec(alt.layer(joined, *points, named), height=320)


def best_so_far(label: str, searched: Sequence[str]) -> Spec:
    """The scores of a study's trials in their order, and the best so far as a line.

    Args:
        label: of the objective.
        searched: keys, for the tooltip.
    """
    x = alt.X("trial:Q", title="trial", axis=alt.Axis(tickMinStep=1, format="d")).scale(nice=False, padding=18)
    y = alt.Y("y:Q", title=label, axis=alt.Axis(tickCount=6)).scale(zero=False, padding=18)
    rows = alt.Chart(ROWS)
    line = rows.transform_filter("isValid(datum.so_far)").mark_line(interpolate="step-after", strokeWidth=2)
    line = line.encode(x=x, y=alt.Y("so_far:Q", title=label).scale(zero=False))
    tooltip = _of_trial(searched, [alt.Tooltip("y:Q", title=label)])
    scored = rows.transform_filter("isValid(datum.y)")
    complete = scored.transform_filter("datum.state === 'complete'").mark_point(size=75, filled=True, opacity=1)
    others = scored.transform_filter("datum.state !== 'complete'").mark_point(size=60)
    points = [layer.encode(x=x, y=y, tooltip=tooltip) for layer in (others, complete)]
    return finished_spec(alt.layer(line, *points), height=280)


def _of_trial(searched: Sequence[str], values: Sequence[alt.Tooltip]) -> list[alt.Tooltip]:
    # A dot or bracket in a field's name would be read as a path.
    names = [key.translate({ord(letter): f"\\{letter}" for letter in ".[]"}) for key in searched]
    keys = [alt.Tooltip(field=name, type="nominal", title=key) for name, key in zip(names, searched, strict=True)]
    return [alt.Tooltip("trial:O"), alt.Tooltip("state:N"), *values, *keys]
