"""Numbers as text for tables."""

from __future__ import annotations

NONE = "-"


def figure(value: float | None) -> str:
    """`0.8642`; `-` for None."""
    return NONE if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """`+0.0067`; `-` for None."""
    return NONE if value is None else f"{value:+.4f}"


def percent(value: float | None) -> str:
    """`+0.78%`; `-` for None."""
    return NONE if value is None else f"{value:+.2%}"
