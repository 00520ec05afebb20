"""Benches of made-up runs, whose times follow from names."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench_helpers import side, small_report, timing

from hydraprune.bench.statistics import with_ratios
from hydraprune.results.bench_report import NAME, BenchedRun, BenchReport, TaskFigures
from hydraprune.results.report import RunReport

SIDES = (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "int8"), ("hydraprune", "fp32"), ("hydraprune", "bf16"))
WORKLOADS = ("batch 1, 32 tokens", "batch 8, 32 tokens")


def bench_of(
    reports: Sequence[RunReport],
    cpu: str = "A <fast> CPU",
    started: str = "2026-01-01T00:00:00+00:00",
    workloads: Sequence[str] = WORKLOADS,
    folder: str = "model",
    task: str | None = None,
    threads: int = 1,
    sides: Sequence[tuple[str, str]] = SIDES,
) -> BenchReport:
    """A bench of the models of some runs, the first of which is the one to compare with.

    Args:
        folder: of the models in those of their runs.
        task: whose scores were measured; None: that of the first run.
    """
    labels = {f"{report.spec.pattern}-{report.spec.hash}": report for report in reports}
    measured = [
        replace(
            side(engine, precision, *(timing(_seconds(label, engine, precision, w, started), w) for w in workloads)),
            model=label,
            scores=_scores(report, precision),
        )
        for label, report in labels.items()
        for engine, precision in sides
    ]
    small, first = small_report(), reports[0]
    clock = "cpu" if threads == 1 else "wall"
    return replace(
        small,
        models={label: f"runs/{label}" for label in labels},
        started=started,
        machine=replace(small.machine, cpu=cpu),
        threads=threads,
        clock=clock,
        sides=tuple(with_ratios(measured, clock, next(iter(labels)))),
        failures=(),
        task=TaskFigures(task or first.spec.task, first.metric or "accuracy", 24, 100),
        runs={label: BenchedRun(report.spec.hash, folder, report.weights) for label, report in labels.items()},
    )


def write_bench_of(folder: Path, bench: BenchReport) -> Path:
    """Write bench.json into a folder; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / NAME
    file.write_text(bench.as_json(), encoding="utf-8")
    return file


def _seconds(*words: str) -> float:
    return random.Random("/".join(words)).uniform(1e-4, 1e-2)


def _scores(report: RunReport, precision: str) -> Mapping[str, float]:
    lost = 0.05 if precision == "int8" else 0.0
    return {name: value - lost for name, value in report.final.items() if value is not None and value == value}
