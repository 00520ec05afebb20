"""How figures look: a Vega configuration for a light page, one for a dark one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Theme = dict[str, Any]

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif"


@dataclass(frozen=True)
class Colors:
    """Of a theme.

    Args:
        ground: of a figure; `ink` and `quiet` are for words on it, `line` for what guides the eye.
        labels: the first is that of dense models; told apart by those who see no red or no green, too.
        ramp: from no zeros to all; `on_low` and `on_high` are for figures on its lower and its upper part.
        parts: of a run's time.
    """

    ground: str
    ink: str
    quiet: str
    line: str
    labels: tuple[str, ...]
    ramp: tuple[str, ...]
    on_low: str
    on_high: str
    parts: tuple[str, ...]


LIGHT = Colors(
    ground="#ffffff",
    ink="#1b2130",
    quiet="#5b6475",
    line="#e3e6ee",
    labels=("#5f6878", "#3b5bdb", "#c2410c", "#087a5b", "#9c36b5", "#8f6f00", "#0b7285", "#c2255c", "#5c7c0d"),
    ramp=("#eef1f8", "#bac8ff", "#748ffc", "#3b5bdb", "#1c2a6b"),
    on_low="#000000",
    on_high="#ffffff",
    parts=("#3b5bdb", "#e8a33d", "#0a8f6c", "#c3c9d6"),
)
DARK = Colors(
    ground="#161b27",
    ink="#e8ebf4",
    quiet="#a0a9bc",
    line="#2b3244",
    labels=("#98a2b3", "#8ea6ff", "#ffa05c", "#4fe0b0", "#e09bff", "#ffd94a", "#5fd3e6", "#ff9dbd", "#bfe26b"),
    ramp=("#20263a", "#26336a", "#3a50b8", "#627cee", "#dfe6ff"),
    on_low="#ffffff",
    on_high="#000000",
    parts=("#8ea6ff", "#ffc46b", "#4fe0b0", "#566079"),
)


# Of labels, that of dense models among them.
COLORS = len(LIGHT.labels)


def light() -> Theme:
    """For a white ground."""
    return _theme(LIGHT)


def dark() -> Theme:
    """For a dark ground."""
    return _theme(DARK)


def alone(look: Theme) -> Theme:
    """For a figure outside the page, which has the legend of all of them."""
    return {**look, "legend": {**look["legend"], "disable": False}}


def _theme(colors: Colors) -> Theme:
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": colors.quiet,
            "titleColor": colors.quiet,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelPadding": 6,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "gridColor": colors.line,
            "domainColor": colors.line,
            "tickColor": colors.line,
        },
        "axisX": {"grid": False, "labelOverlap": True, "labelFlush": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "disable": True,
            "labelColor": colors.quiet,
            "labelFontSize": 11,
            "symbolOpacity": 1,
            "orient": "bottom",
            "title": None,
        },
        "range": {"category": colors.labels, "heatmap": colors.ramp, "ramp": colors.ramp, "ordinal": colors.parts},
        "text": {"color": colors.ink, "fontSize": 11},
        "style": {
            "mean": {"stroke": colors.ground, "strokeWidth": 1.5, "opacity": 1},
            "dense": {"color": colors.labels[0]},
            "band": {"color": colors.labels[0], "opacity": 0.13},
            "published": {"color": colors.ink},
            "cell": {"stroke": colors.ground, "strokeWidth": 2},
            "on-low": {"color": colors.on_low},
            "on-high": {"color": colors.on_high},
            "kept": {"color": colors.labels[1], "stroke": colors.ramp[0], "strokeWidth": 0.8},
            "mask": {"color": colors.ramp[0]},
            "border": {"color": colors.ground, "strokeWidth": 2},
        },
    }
