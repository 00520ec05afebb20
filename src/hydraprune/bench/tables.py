"""The tables of a bench, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hydraprune.results.bench_report import BenchReport, Distribution, SideResult, Timing
from hydraprune.results.escaping import in_markdown
from hydraprune.results.number_format import NONE, figure, milliseconds, ratio

_PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class _Sheet:
    """One table: a title, the names of its columns, and rows of text; the first columns are names."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int


def terminal(report: BenchReport) -> RenderableType:
    """The report for a terminal: a table for each workload, one of the sides, and what failed."""
    parts: list[RenderableType] = [Text(line) for line in _heading(report)]
    for sheet in _sheets(report, full=False):
        table = Table(title=sheet.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(sheet.header):
            table.add_column(Text(name), justify="left" if place < sheet.names else "right", no_wrap=True)
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        parts += [Text(), table]
    parts += [Text(line) for line in [*_notes(report), *_side_notes(report)]]
    parts += [Text(f"not measured: {line}", style="yellow") for line in _failures(report)]
    return Group(*parts)


def markdown(report: BenchReport) -> str:
    """The report as Markdown, with all statistics of wall and CPU time."""
    parts = ["# Bench", "\n".join(f"- {in_markdown(line)}" for line in _heading(report))]
    for sheet in _sheets(report, full=True):
        parts += [f"## {in_markdown(sheet.title)}", _markdown_table(sheet)]
    parts.append("\n".join(f"- {in_markdown(line)}" for line in [*_notes(report), *_side_notes(report)]))
    if failures := _failures(report):
        parts += ["## Not measured", "\n".join(f"- {in_markdown(line)}" for line in failures)]
    return "\n\n".join(parts) + "\n"


def _heading(report: BenchReport) -> list[str]:
    here = report.machine
    flags = " ".join(here.flags) or "none of avx2, avx512, amx"
    cores = "not pinned" if here.pinned is None else f"pinned to core {', '.join(map(str, here.pinned))}"
    load = "unknown" if here.load is None else " ".join(f"{value:.2f}" for value in here.load)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        f"CPU: {here.cpu}, {here.cores} cores, {here.memory_bytes / 1e9:.1f} GB; {flags}",
        f"{report.threads} thread{'s' * (report.threads > 1)}, {cores}; load average at the start: {load}",
        f"{versions}; {here.system}",
        f"{report.started}, {report.rounds} rounds in turns of {report.calls} calls, the first of each not counted",
    ]
    if (task := report.task) is not None:
        lines.append(f"task {task.name}: {task.metric} on {task.examples} of {task.of} examples")
    return lines


def _sheets(report: BenchReport, full: bool) -> list[_Sheet]:
    return [*(_timings(report, workload, full) for workload in report.workloads), _sides(report)]


def _timings(report: BenchReport, workload: str, full: bool) -> _Sheet:
    """Milliseconds of one workload.

    Args:
        full: with all statistics of CPU time; otherwise with its median.
    """
    names = _name_columns(report)
    cpu = [*_PERCENTILES, "mean", "sd"] if full else ["p50"]
    wall = [*_PERCENTILES, "mean", "sd"]
    header = [*names, *(f"CPU {name}" for name in cpu), *wall, "texts/s", "x fp32", "x any"]
    rows = []
    tokens = 0.0
    for side in report.sides:
        for timing in side.timings:
            if timing.workload == workload:
                tokens = timing.tokens
                rows.append([*_names(report, side), *_row(timing, cpu)])
    padded = f", {tokens:.0f} tokens a text with padding" if "tokens" not in workload else ""
    return _Sheet(f"{workload}{padded}: ms a call, of wall time where not CPU", header, rows, len(names))


def _row(timing: Timing, cpu: Sequence[str]) -> list[str]:
    return [
        *(_milliseconds(timing.cpu, name) for name in cpu),
        *(_milliseconds(timing.wall, name) for name in (*_PERCENTILES, "mean", "sd")),
        f"{timing.throughput:.0f}" if timing.throughput >= 100 else f"{timing.throughput:.1f}",
        ratio(timing.vs_fp32),
        ratio(timing.vs_any),
    ]


def _sides(report: BenchReport) -> _Sheet:
    names = _name_columns(report)
    header = [*names, "version", "disk MB", "start ms", "start CPU ms", "memory MB", "peak MB", "error"]
    metric = None if report.task is None else report.task.metric
    header += [] if metric is None else [metric, "loss"]
    rows = []
    for side in report.sides:
        row = [
            *_names(report, side),
            side.version,
            f"{side.disk_bytes / 1e6:.1f}",
            f"{1e3 * side.load_seconds:.0f}",
            f"{1e3 * side.load_cpu_seconds:.0f}",
            f"{side.memory_bytes / 1e6:.1f}",
            NONE if side.peak_bytes is None else f"{side.peak_bytes / 1e6:.1f}",
            NONE if side.error is None else f"{side.error:.1e}",
        ]
        if metric is not None:
            row += [figure((side.scores or {}).get(metric)), figure(side.loss)]
        rows.append(row)
    return _Sheet("Sides", header, rows, len(names) + 1)


def _name_columns(report: BenchReport) -> list[str]:
    return [*(["model"] if len(report.models) > 1 else []), "engine", "precision"]


def _names(report: BenchReport, side: SideResult) -> list[str]:
    return [*([side.model] if len(report.models) > 1 else []), side.engine, side.precision]


def _notes(report: BenchReport) -> list[str]:
    first = next(iter(report.models))
    of = f" of {first}" if len(report.models) > 1 else ""
    lines = [
        f"x fp32, x any: times as fast as the best dense fp32 side{of}, and as its best dense side of any precision, "
        f"by the median of {'CPU' if report.clock == 'cpu' else 'wall'} time.",
        "error: norm of the difference of the logits / norm of those of torch fp32 of the same model.",
    ]
    if report.task is not None:
        lines.append(f"loss: {report.task.metric} of torch fp32{of} minus that of the side.")
    return lines


def _side_notes(report: BenchReport) -> list[str]:
    return [f"{' '.join(_names(report, side))}: {side.note}" for side in report.sides if side.note]


def _failures(report: BenchReport) -> list[str]:
    several = len(report.models) > 1
    return [f"{f'{f.model} ' * several}{f.engine} {f.precision}: {f.reason}" for f in report.failures]


def _milliseconds(distribution: Distribution, name: str) -> str:
    seconds: float | None = getattr(distribution, name)
    return NONE if seconds is None else milliseconds(seconds)


def _markdown_table(sheet: _Sheet) -> str:
    marks = ["---" if place < sheet.names else "---:" for place in range(len(sheet.header))]
    lines = [[in_markdown(cell).replace("|", "\\|") for cell in row] for row in (sheet.header, *sheet.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], marks, *lines[1:]))
