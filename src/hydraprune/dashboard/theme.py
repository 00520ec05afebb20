"""How figures look: a Vega configuration for a light page, one for a dark one."""

from __future__ import annotations

from typing import Any

Theme = dict[str, Any]

# The first is that of dense models; the others are told apart by those who see no red or no green, too.
_LIGHT = ["#7c8594", "#3b5bdb", "#d9480f", "#0a8f6c", "#9c36b5", "#b08900", "#0b7285", "#c2255c", "#5c7c0d"]
_DARK = ["#98a2b3", "#8ea6ff", "#ffa05c", "#4fe0b0", "#e09bff", "#ffd94a", "#5fd3e6", "#ff9dbd", "#bfe26b"]
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif"


def light() -> Theme:
    """For a white ground."""
    ramp = ["#eef1f8", "#bac8ff", "#748ffc", "#3b5bdb", "#1c2a6b"]
    return _theme(
        "#1b2130", "#5b6475", "#e3e6ee", "#ffffff", _LIGHT, ramp, ["#3b5bdb", "#e8a33d", "#0a8f6c", "#c3c9d6"]
    )


def dark() -> Theme:
    """For a dark ground."""
    ramp = ["#20263a", "#2b3d80", "#4c6bea", "#93a9ff", "#dfe6ff"]
    parts = ["#8ea6ff", "#ffc46b", "#4fe0b0", "#566079"]
    return _theme("#e8ebf4", "#a0a9bc", "#2b3244", "#161b27", _DARK, ramp, parts)


def alone(look: Theme) -> Theme:
    """For a figure outside the page, which has the legend of all of them."""
    return {**look, "legend": {**look["legend"], "disable": False}}


def _theme(ink: str, quiet: str, line: str, ground: str, colors: list[str], ramp: list[str], parts: list[str]) -> Theme:
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": quiet,
            "titleColor": quiet,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelPadding": 6,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "gridColor": line,
            "domainColor": line,
            "tickColor": line,
        },
        "axisX": {"grid": False, "labelOverlap": True, "labelFlush": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "disable": True,
            "labelColor": quiet,
            "labelFontSize": 11,
            "symbolOpacity": 1,
            "orient": "bottom",
            "title": None,
        },
        "range": {"category": colors, "heatmap": ramp, "ramp": ramp, "ordinal": parts},
        "text": {"color": ink, "fontSize": 11},
        "style": {
            "mean": {"stroke": ground, "strokeWidth": 1.5, "opacity": 1},
            "dense": {"color": colors[0]},
            "band": {"color": colors[0], "opacity": 0.13},
            "published": {"color": ink},
            "cell": {"stroke": ground, "strokeWidth": 2},
            "on-low": {"color": ink},
            "on-high": {"color": ground},
            "kept": {"color": colors[1], "stroke": ramp[0], "strokeWidth": 0.8},
            "mask": {"color": ramp[0]},
            "border": {"color": ground, "strokeWidth": 2},
        },
    }
