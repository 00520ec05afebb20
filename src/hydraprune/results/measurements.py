"""Measurements of runs: what benches measured of their models, each with the setting that it can be compared in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hydraprune.results.bench_report import NAME, BenchReport, SideResult, Timing
from hydraprune.results.report import RunReport

_FULL_MODEL = "model"


@dataclass(frozen=True, order=True)
class Setting:
    """Where and how a side was timed: only figures of equal settings are compared.

    Args:
        cpu, flags, cores: as in `Machine`.
        threads: of each engine.
        clock: `cpu` or `wall`: the time that is given.
    """

    cpu: str
    flags: tuple[str, ...]
    cores: int
    threads: int
    clock: str

    @property
    def text(self) -> str:
        """For headings and notes: `Intel(R) Xeon(R) ..., 1 thread of 2 cores, CPU time`."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        cores = f"{self.cores} core{'s' * (self.cores != 1)}"
        return f"{self.cpu}, {threads} of {cores}, {'CPU' if self.clock == 'cpu' else 'wall'} time"


@dataclass(frozen=True)
class Baseline:
    """The best dense fp32 side of the first model of a bench, which the ratios are to.

    Args:
        model: its label in the bench.
        run: hash of its run; None where it is of none.
        seconds: median of a call.
    """

    model: str
    run: str | None
    engine: str
    seconds: float

    def named(self, names: Mapping[str, str]) -> str:
        """`dense in openvino`.

        Args:
            names: hash of a run -> what its model is called; others have the label of the bench.
        """
        return f"{names.get(self.run or '', self.model)} in {self.engine}"


@dataclass(frozen=True)
class Measurement:
    """A side of a run's model on one workload.

    Args:
        started: of the bench, ISO 8601.
        run, cell, seed: of the run.
        folder: of the model in that of the run: `model`, or `model-slim` as `slim` writes it.
        seconds: median of a call.
        times_fp32, times_any: how many times as fast as the best dense fp32 side of the bench's first model, and as
            its best dense side; None without one.
        scores: metric -> value of this side on the task of the run; empty where the bench had none, or another task.
        examples: that the scores are of; None without scores.
    """

    setting: Setting
    started: str
    run: str
    cell: str
    seed: int
    folder: str
    engine: str
    precision: str
    version: str
    workload: str
    seconds: float
    times_fp32: float | None
    times_any: float | None
    baseline: Baseline | None
    scores: Mapping[str, float]
    examples: int | None

    @property
    def form(self) -> str:
        """The folder of the model in its run's; empty for the run's own model."""
        return "" if self.folder == _FULL_MODEL else self.folder


@dataclass(frozen=True)
class Measured:
    """What some benches measured of some runs.

    Args:
        measurements: of every run, folder, side, workload and setting the last one.
        left_out: (file, why) of what is no measurement of a known run as it is now.
    """

    measurements: tuple[Measurement, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def measured(reports: Iterable[RunReport], benches: Mapping[Path, BenchReport]) -> Measured:
    """What benches measured of the models of some runs.

    Args:
        reports: of the runs; others are not known.
        benches: folder -> the bench.json there.
    """
    runs = {report.spec.hash: report for report in reports if report.finished}
    last: dict[tuple[object, ...], Measurement] = {}
    left_out = []
    for folder, bench in sorted(benches.items(), key=lambda item: (item[1].started, str(item[0]))):
        known = {label: runs[of.hash] for label, of in bench.runs.items() if of.hash in runs}
        if not known:
            left_out.append((str(folder / NAME), "none of its models is that of a run here"))
        for label, report in known.items():
            then, now = bench.runs[label].weights, report.weights
            if then is not None and now is not None and then != now:
                why = f"{label} was measured with other weights than its run has now; measure again"
                left_out.append((str(folder / NAME), why))
                continue
            for found in _of_run(bench, label, report):
                key = (found.setting, found.run, found.folder, found.engine, found.precision, found.workload)
                last.pop(key, None)  # in the order of the last ones
                last[key] = found
    return Measured(tuple(last.values()), tuple(left_out))


def _of_run(bench: BenchReport, label: str, report: RunReport) -> Iterator[Measurement]:
    here = bench.machine
    setting = Setting(here.cpu, tuple(here.flags), here.cores, bench.threads, bench.clock)
    own_task = bench.task is not None and bench.task.name == report.spec.task
    for side in (side for side in bench.sides if side.model == label):
        for timing in (timing for timing in side.timings if _median(timing, bench.clock) > 0):  # a coarse clock gives 0
            yield Measurement(
                setting=setting,
                started=bench.started,
                run=report.spec.hash,
                cell=report.spec.cell,
                seed=report.spec.seed,
                folder=bench.runs[label].folder,
                engine=side.engine,
                precision=side.precision,
                version=side.version,
                workload=timing.workload,
                seconds=_median(timing, bench.clock),
                times_fp32=timing.vs_fp32,
                times_any=timing.vs_any,
                baseline=_baseline(bench, timing.workload),
                scores=dict(side.scores or {}) if own_task else {},
                examples=bench.task.examples if own_task and bench.task and side.scores else None,
            )


def _baseline(bench: BenchReport, workload: str) -> Baseline | None:
    first = next(iter(bench.models), None)
    timed: list[tuple[float, SideResult]] = [
        (median, side)
        for side in bench.sides
        if side.model == first and side.is_dense and side.precision == "fp32"
        for timing in side.timings
        if timing.workload == workload and (median := _median(timing, bench.clock)) > 0
    ]
    if first is None or not timed:
        return None
    seconds, best = min(timed, key=lambda item: item[0])
    run = bench.runs.get(first)
    return Baseline(first, None if run is None else run.hash, best.engine, seconds)


def _median(timing: Timing, clock: str) -> float:
    return timing.cpu.p50 if clock == "cpu" else timing.wall.p50
