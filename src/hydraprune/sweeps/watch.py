"""`hydraprune watch`: a sweep as it runs, seen from another terminal. It only reads."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hydraprune.sweeps.lookup import look
from hydraprune.sweeps.progress import Progress
from hydraprune.sweeps.terminal import ended, overall

# Columns where no terminal says how many it has.
_WIDTH = 120


def watch(folder: Path, once: bool, period: float) -> int:
    """Show how far the sweep in a folder is, until all is done; one picture with `once`, or where nobody watches.

    Args:
        period: seconds between two looks.

    Returns:
        1 when a job failed, otherwise 0.

    Raises:
        UserError: there is nothing to watch.
    """
    now = look(folder)
    if once or not _watched():
        console = Console(highlight=False, width=None if _watched() or "COLUMNS" in os.environ else _WIDTH)
        for part in _picture(folder, now, console, whole=not _watched()):
            # A line that somebody reads later, or searches, is not cut.
            console.print(part, soft_wrap=isinstance(part, Text))
    else:
        console = Console(highlight=False)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Group(*_picture(folder, now, console)), refresh=True)
                if now.over:
                    break
                time.sleep(period)
                now = look(folder)
    return 1 if now.failed else 0


def _picture(folder: Path, now: Progress, console: Console, whole: bool = False) -> list[RenderableType]:
    title = Text(str(folder), style="bold")
    if not whole:
        title.truncate(console.width, overflow="ellipsis")
    # What is refreshed in place must not be taller than the terminal; a third of it for failures.
    most = None if whole or now.over else max(3, console.height // 3)
    return [title, *overall(now, console.width), *ended(now, 0 if whole else console.width, most)]


def _watched() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
