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


def milliseconds(seconds: float) -> str:
    """`4.21`, `128`: three digits of some seconds."""
    return f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def ratio(value: float | None) -> str:
    """`6.40`; `-` for None."""
    return NONE if value is None else f"{value:.2f}"
