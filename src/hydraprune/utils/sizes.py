"""Byte counts for people, in decimal units: 1 GB is 10^9 bytes, as in `cache.max_gb`."""

from __future__ import annotations

GB = 1_000_000_000


def format_bytes(count: float) -> str:
    """`493 MB`, `1.2 GB`."""
    return f"{count / 1e6:.0f} MB" if count < GB else f"{count / GB:.1f} GB"
