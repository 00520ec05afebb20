"""One live view of a sweep in the terminal; plain lines where nobody watches."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hydraprune.results.estimates import duration
from hydraprune.results.planned import Planned
from hydraprune.results.progress import Progress
from hydraprune.results.report import RunReport

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
        self._begun = time.time()

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
            self._tell(job, f"done    {job.name}: {_figures(report)}", now)
        for job, why in now.failed:
            self._tell(job, f"failed  {job.name}: {why}", now)
        if self._live is not None:
            self._live.update(_picture(now, time.time() - self._begun), refresh=True)

    def _tell(self, job: Planned, line: str, now: Progress) -> None:
        if str(job.directory) in self._told:
            return
        self._told.add(str(job.directory))
        count = f"{len(now.done) + len(now.failed)} of {_total(now)}"
        self._console.print(Text(f"{line}  ({count}, {now.left} left)"), soft_wrap=True)


def _watched() -> bool:
    return sys.stderr.isatty()


def _total(now: Progress) -> int:
    # Running ancestors are no jobs of the sweep.
    return len(now.done) + len(now.failed) + len(now.waiting) + sum(r.job.refusal is not None for r in now.running)


def _figures(report: RunReport) -> str:
    shown = []
    for metric, value in report.final.items():
        dense = (report.dense or {}).get(metric)
        change = "" if dense is None or value is None else f" ({value - dense:+.4f})"
        shown.append(f"{metric} {'not a number' if value is None else f'{value:.4f}'}{change}")
    total = report.seconds.get("total")
    return ", ".join(shown + ([] if total is None else [duration(total)]))


def _picture(now: Progress, passed: float) -> Table:
    table = Table.grid(padding=(0, 2))
    total = max(1, _total(now))
    head = Text.assemble(
        (f"{len(now.done)} done", "green"),
        f"  {len(now.running)} running  ",
        (f"{len(now.failed)} failed", "red" if now.failed else "dim"),
        f"  {len(now.waiting)} to come",
    )
    table.add_row(ProgressBar(total, len(now.done) + len(now.failed), width=30), head)
    for running in now.running:
        steps = running.job.steps or 0
        table.add_row(
            ProgressBar(max(1, steps), running.step, width=30),
            Text(f"{running.job.name}  step {running.step} of {steps}"),
        )
    table.add_row("", Text(f"{duration(passed)} so far, {now.left} left", style="dim"))
    return table
