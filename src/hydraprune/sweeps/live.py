"""The live view of a sweep in its own terminal; plain lines if the output is not a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hydraprune.results.plan_file import Planned
from hydraprune.sweeps.progress import Progress
from hydraprune.sweeps.render import progress_view, result_line
from hydraprune.utils.terminal import is_interactive

# Seconds between two readings of the jobs' folders.
_PERIOD = 1.0
# Between two readings passes at least so many times the processor time that the last one took.
RESTS = 30


class View:
    """A context in which the progress is shown, with one line for each job that ends.

    Args:
        look: returns the current progress.
    """

    def __init__(self, look: Callable[[], Progress]) -> None:
        self._look = look
        self._console = Console(file=sys.stderr, highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if is_interactive(sys.stderr) else None
        )
        self._printed: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> View:
        # Jobs that were done before are in the plan that was printed.
        self._printed = {str(job.directory) for job, _ in self._look().done}
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
        rest = 0.0
        while not self._stop.wait(max(_PERIOD, rest)):
            begun = time.thread_time()
            self._show()
            rest = RESTS * (time.thread_time() - begun)

    def _show(self) -> None:
        now = self._look()
        for job, report in now.done:
            self._print_once(job, f"done    {now.name(job)}: {result_line(report)}", now)
        for job, why in now.failed:
            self._print_once(job, f"failed  {now.name(job)}: {why}", now)
        for job, _ in now.stopped:
            self._print_once(job, f"stopped {now.name(job)}, early", now)
        if self._live is not None:
            self._live.update(Group(*progress_view(now, self._console.width)), refresh=True)

    def _print_once(self, job: Planned, line: str, now: Progress) -> None:
        if str(job.directory) in self._printed:
            return
        self._printed.add(str(job.directory))
        count = f"{now.ended} of {now.total}"
        self._console.print(Text(f"{line}  ({count}, {now.left} left)"), soft_wrap=True)
