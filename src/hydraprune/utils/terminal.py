"""Whether output can be redrawn in place."""

from __future__ import annotations

import os
from typing import IO


def is_interactive(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor; not a file, a pipe or a dumb terminal."""
    unknown = "" if os.name == "nt" else "dumb"  # Windows sets no TERM
    return stream.isatty() and os.environ.get("TERM", unknown) != "dumb"
