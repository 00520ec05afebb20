"""Figures as people read them."""

from __future__ import annotations

NONE = "-"


def figure(value: float | None) -> str:
    """`0.8642`"""
    return NONE if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """`+0.0067`"""
    return NONE if value is None else f"{value:+.4f}"


def percent(value: float | None) -> str:
    """`+0.78%`"""
    return NONE if value is None else f"{value:+.2%}"
