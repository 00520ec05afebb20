"""The themes of the figures: a Vega configuration for a light page and one for a dark page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Theme = dict[str, Any]

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif"


@dataclass(frozen=True)
class Colors:
    """The colors of a theme.

    Args:
        background: of a figure.
        text, muted: for text; the second for axes and legends.
        grid: for grid lines and axes.
        labels: for patterns, safe for red-green color blindness; the first is that of dense models.
        ramp: for sparsity from 0 to 1; `on_low` and `on_high` are for text on its lower and upper part.
        phases: for the phases of a run's time.
    """

    background: str
    text: str
    muted: str
    grid: str
    labels: tuple[str, ...]
    ramp: tuple[str, ...]
    on_low: str
    on_high: str
    phases: tuple[str, ...]


LIGHT = Colors(
    background="#ffffff",
    text="#1b2130",
    muted="#5b6475",
    grid="#e3e6ee",
    labels=("#5f6878", "#3b5bdb", "#c2410c", "#087a5b", "#9c36b5", "#8f6f00", "#0b7285", "#c2255c", "#5c7c0d"),
    ramp=("#eef1f8", "#bac8ff", "#748ffc", "#3b5bdb", "#1c2a6b"),
    on_low="#000000",
    on_high="#ffffff",
    phases=("#3b5bdb", "#e8a33d", "#0a8f6c", "#c3c9d6"),
)
DARK = Colors(
    background="#161b27",
    text="#e8ebf4",
    muted="#a0a9bc",
    grid="#2b3244",
    labels=("#98a2b3", "#8ea6ff", "#ffa05c", "#4fe0b0", "#e09bff", "#ffd94a", "#5fd3e6", "#ff9dbd", "#bfe26b"),
    ramp=("#20263a", "#26336a", "#3a50b8", "#627cee", "#dfe6ff"),
    on_low="#ffffff",
    on_high="#000000",
    phases=("#8ea6ff", "#ffc46b", "#4fe0b0", "#566079"),
)


# Number of label colors, with that of dense models.
COLORS = len(LIGHT.labels)


def light() -> Theme:
    """The theme for a light page."""
    return _theme(LIGHT)


def dark() -> Theme:
    """The theme for a dark page."""
    return _theme(DARK)


def with_legend(theme: Theme) -> Theme:
    """The theme for a figure outside the page, with a legend of its own."""
    return {**theme, "legend": {**theme["legend"], "disable": False}}


def _theme(colors: Colors) -> Theme:
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": colors.muted,
            "titleColor": colors.muted,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelPadding": 6,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "gridColor": colors.grid,
            "domainColor": colors.grid,
            "tickColor": colors.grid,
        },
        "axisX": {"grid": False, "labelOverlap": True, "labelFlush": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "disable": True,
            "labelColor": colors.muted,
            "labelFontSize": 11,
            "symbolOpacity": 1,
            "symbolBaseFillColor": colors.muted,
            "symbolFillColor": colors.muted,
            "orient": "bottom",
            "title": None,
        },
        "range": {"category": colors.labels, "heatmap": colors.ramp, "ramp": colors.ramp, "ordinal": colors.phases},
        "text": {"color": colors.text, "fontSize": 11},
        "style": {
            "mean": {"stroke": colors.background, "strokeWidth": 1.5, "opacity": 1},
            "dense": {"color": colors.labels[0]},
            "band": {"color": colors.labels[0], "opacity": 0.13},
            "published": {"color": colors.text},
            "cell": {"stroke": colors.background, "strokeWidth": 2},
            "on-low": {"color": colors.on_low},
            "on-high": {"color": colors.on_high},
            "kept": {"color": colors.labels[1], "stroke": colors.ramp[0], "strokeWidth": 0.8},
            "mask": {"color": colors.ramp[0]},
            "border": {"color": colors.background, "strokeWidth": 2},
        },
    }
