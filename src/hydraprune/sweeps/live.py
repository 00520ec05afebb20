"""One live view of a sweep in the terminal; plain lines where nobody watches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hydraprune.results.plan_file import Planned
from hydraprune.sweeps.progress import Progress
from hydraprune.sweeps.terminal import figures, overall

# Seconds between two looks at the jobs' folders.
_PERIOD = 1.0


class View:
    """While it is entered: shows how far the jobs are, and says once of each what came of it.

    Args:
        look: how far they are now.
    """

    def __init__(self, look: Callable[[], Progress]) -> None:
        self._look = look
        self._console = Console(file=sys.stderr, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if _watched() else None
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> View:
        # What was done before the sweep began is in its plan, and is not told again.
        self._told = {str(job.directory) for job, _ in self._look().done}
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        if self._live is not None:
            self._live.stop()

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD):
            self._show()

    def _show(self) -> None:
        now = self._look()
        for job, report in now.done:
            self._tell(job, f"done    {job.name}: {figures(report)}", now)
        for job, why in now.failed:
            self._tell(job, f"failed  {job.name}: {why}", now)
        if self._live is not None:
            self._live.update(Group(*overall(now, self._console.width)), refresh=True)

    def _tell(self, job: Planned, line: str, now: Progress) -> None:
        if str(job.directory) in self._told:
            return
        self._told.add(str(job.directory))
        count = f"{len(now.done) + len(now.failed)} of {now.total}"
        self._console.print(Text(f"{line}  ({count}, {now.left} left)"), soft_wrap=True)


def _watched() -> bool:
    return sys.stderr.isatty()
