"""Spellings of names."""

from __future__ import annotations

import re


def snake(name: str) -> str:
    """A class name in snake case: `snip_momentum` for `SnipMomentum`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
