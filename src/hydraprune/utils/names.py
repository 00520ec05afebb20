"""Names in the spellings that files and tables use."""

from __future__ import annotations

import re


def snake(name: str) -> str:
    """`snip_momentum` of `SnipMomentum`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
