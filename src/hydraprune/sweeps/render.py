"""The progress of a sweep as rich renderables, for the live view and `hydraprune watch`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hydraprune.results.metric_rows import metric_rows
from hydraprune.results.report import RunReport
from hydraprune.sweeps.estimates import duration
from hydraprune.sweeps.progress import Progress, Running

# Terminal columns from which running jobs are shown as a table.
_TABLE_WIDTH = 96
# A sweep without a running job for this many seconds may be dead.
_DEAD_SECONDS = 60.0
_NO_BREAK = "\N{NO-BREAK SPACE}"


def progress_view(now: Progress, width: int) -> list[RenderableType]:
    """The sweep as a whole, and its running jobs.

    Args:
        width: columns of the terminal.
    """
    bar = max(10, min(30, width // 4))
    head = Table.grid(padding=(0, 2))
    head.add_row(ProgressBar(1.0, now.share, width=bar), _counts(now))
    if times := _times(now):
        head.add_row("", Text(times, style="dim"))
    if now.waiting and not now.running and now.idle > _DEAD_SECONDS:
        idle = f"nothing has run for {duration(now.idle)}; start the same command again to resume"
        head.add_row("", Text(idle, style="yellow"))
    parts: list[RenderableType] = [head]
    if now.running:
        parts.append(_columns(now) if width >= _TABLE_WIDTH else _stacked(now, bar, width))
    return parts


def ended_lines(now: Progress, width: int, most: int | None = None) -> list[RenderableType]:
    """The last few finished jobs and the failed ones, a line each if there is room.

    Args:
        width: columns of the terminal; 0: unlimited.
        most: failures to show; None: all.
    """
    results = [(now.name(job), result_line(report)) for job, report in now.last]
    room = max((len(name) for name, _ in results), default=0)
    lines = [Text(f"{name:<{room}}  {scores}") for name, scores in results]
    if width and any(len(line) + 2 > width for line in lines):
        lines = [Text(line) for name, scores in results for line in (name, f"  {scores}")]
    parts = _titled("last finished", lines, "green")
    shown = now.failed[:most]
    lines = [Text.assemble(_truncated(now.name(job), width // 2), f": {' '.join(why.split())}") for job, why in shown]
    if len(shown) < len(now.failed):
        lines.append(Text(f"and {len(now.failed) - len(shown)} more", style="dim"))
    parts += _titled("failed", lines, "red")
    parts += _titled("not readable", [Text(f"{file}: {why}") for file, why in now.damaged[:most]], "yellow")
    return [_truncated(line, width) for line in parts]


def result_line(report: RunReport) -> str:
    """The result of a run: its metrics, their differences to the dense model, and its time."""
    shown = []
    for row in metric_rows(report.final, dense=report.dense):
        change = "" if row.difference is None else f" ({row.difference:+.4f})"
        shown.append(f"{row.metric} {'not a number' if row.final is None else f'{row.final:.4f}'}{change}")
    total = report.seconds.get("total")
    return ", ".join(shown + ([] if total is None else [duration(total)]))


def _truncated(text: Text | str, width: int) -> Text:
    """A text truncated to `width` columns; 0: not truncated."""
    shown = Text(text) if isinstance(text, str) else text.copy()
    if width:
        shown.truncate(width, overflow="ellipsis")
    return shown


def _titled(title: str, lines: Sequence[Text], style: str) -> list[Text]:
    return [Text(title, style=style), *(Text.assemble("  ", line) for line in lines)] if lines else []


def _counts(now: Progress) -> Text:
    return Text.assemble(
        (f"{len(now.done)} done", "green"),
        f"  {len(now.running)} running  ",
        (f"{len(now.failed)} failed", "red" if now.failed else "dim"),
        f"  {len(now.stopped)} stopped early" if now.stopped else "",
        f"  {len(now.waiting)} waiting" if now.planned else "",
    )


def _times(now: Progress) -> str:
    if now.over:
        return f"{duration(now.passed)} in all" if now.passed else ""
    so_far = [] if now.passed is None else [f"{duration(now.passed)} so far"]
    # Without a plan it is unknown how many runs follow.
    return ", ".join([*so_far, f"{now.left} left"] if now.planned else so_far)


def _columns(now: Progress) -> Table:
    """Running jobs as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in ("", "running", "step", "loss", "sparsity", "scores", "s/step", "left"):
        table.add_column(column, no_wrap=column != "running", min_width=18 if column == "running" else None)
    for run in now.running:
        name = Text.assemble(now.name(run.job), *((f"\n{note}", "yellow") for note in _notes(run, now)))
        scores = "\n".join(f"{metric} {_number(value)}" for metric, value in run.latest.scores.items())
        rate = "" if run.rate is None else f"{run.rate:.3g}"
        left = "" if run.left is None else duration(run.left)
        loss, sparsity = _number(run.latest.loss), _number(run.latest.sparsity, 3)
        table.add_row(_bar(run, 12), name, _steps(run), loss, sparsity, scores, rate, left)
    return table


def _stacked(now: Progress, bar: int, width: int) -> Table:
    """Running jobs with two lines or more each, for a narrow terminal."""
    table = Table.grid(padding=(0, 2))
    for run in now.running:
        known = [f"step {_steps(run)}"]
        known += [f"loss {_number(run.latest.loss)}"] if run.latest.loss is not None else []
        known += [f"sparsity {_number(run.latest.sparsity, 3)}"] if run.latest.sparsity is not None else []
        known += [f"{metric} {_number(value)}" for metric, value in run.latest.scores.items()]
        known += [f"{run.rate:.3g} s/step"] if run.rate is not None else []
        known += [f"{duration(run.left)} left"] if run.left is not None else []
        table.add_row(_bar(run, bar), Text(now.name(run.job)))
        # Lines break between figures, not within one: textwrap keeps no-break spaces.
        text = ", ".join(figure.replace(" ", _NO_BREAK) for figure in known)
        lines = textwrap.wrap(text, max(20, width - bar - 2))
        table.add_row("", Text("\n".join(lines).replace(_NO_BREAK, " "), style="dim"))
        for note in _notes(run, now):
            table.add_row("", Text(note, style="yellow"))
    return table


def _notes(run: Running, now: Progress) -> list[str]:
    """What a running job waits for, or a warning that it may be dead."""
    if not run.step and run.job.ancestor in {other.job.spec.hash for other in now.running}:
        return ["training its dense model first"]
    return [] if run.quiet is None else [f"no output for {duration(run.quiet)}; may be dead"]


def _bar(run: Running, width: int) -> RenderableType:
    return ProgressBar(run.job.steps, run.step, width=width) if run.job.steps else Text("")


def _steps(run: Running) -> str:
    return f"{run.step} of {run.job.steps}" if run.job.steps else str(run.step)


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}" if math.isfinite(value) else "nan"
