"""`hydraprune watch`: the progress of a sweep, from any terminal. It only reads."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hydraprune.sweeps.job_reports import JobReports
from hydraprune.sweeps.live import RESTS
from hydraprune.sweeps.lookup import look
from hydraprune.sweeps.progress import Progress
from hydraprune.sweeps.render import ended_lines, progress_view
from hydraprune.utils.terminal import is_interactive

# Columns if the output is not a terminal.
_WIDTH = 120


def watch(folder: Path, once: bool, period: float) -> int:
    """Show the progress of the sweep in a folder until all jobs have ended; only once if not in a terminal.

    Args:
        once: show it once and return.
        period: seconds between two readings of the folder.

    Returns:
        1 if a job failed or its report cannot be read, otherwise 0.

    Raises:
        UserError: there is nothing to watch.
    """
    reports = JobReports()
    now, interactive = look(folder, reports), is_interactive(sys.stdout)
    if once or not interactive:
        console = Console(highlight=False, width=None if interactive or "COLUMNS" in os.environ else _WIDTH)
        for part in _view(folder, now, console, whole=not interactive):
            # Lines in a file or pipe are not truncated.
            console.print(part, soft_wrap=isinstance(part, Text))
    else:
        console = Console(highlight=False)
        rest = 0.0
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Group(*_view(folder, now, console)), refresh=True)
                if now.over:
                    break
                time.sleep(max(period, rest))
                begun = time.process_time()
                now = look(folder, reports)
                rest = RESTS * (time.process_time() - begun)
    return 1 if now.failed or now.damaged else 0


def _view(folder: Path, now: Progress, console: Console, whole: bool = False) -> list[RenderableType]:
    title = Text(str(folder), style="bold")
    if not whole:
        title.truncate(console.width, overflow="ellipsis")
    # What is redrawn in place must fit the terminal: at most a third of it for failures.
    most = None if whole or now.over else max(3, console.height // 3)
    return [title, *progress_view(now, console.width), *ended_lines(now, 0 if whole else console.width, most)]
