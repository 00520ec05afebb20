"""What was measured of a running side, as the records of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch

from hydraprune import __version__
from hydraprune.bench.models import PreparedModel
from hydraprune.bench.options import EXTRAS, REFERENCE, BenchOptions, Side
from hydraprune.bench.places import Place
from hydraprune.bench.processes import WorkerProcess
from hydraprune.bench.statistics import distribution
from hydraprune.bench.workloads import Workload
from hydraprune.deploy.engines import versions
from hydraprune.results.bench_report import SideResult, TaskFigures, Timing

Logits = list[list[float]]


@dataclass(eq=False)
class RunningSide:
    """A side of a model, with its process and what was measured of it so far.

    Args:
        started, memory: answers of the worker to `start` and `memory`.
        wall, cpu: workload -> seconds of the counted calls.
        logits: of the task's examples, or of the grid.
    """

    model: PreparedModel
    side: Side
    place: Place
    process: WorkerProcess
    started: dict[str, Any] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    logits: Logits = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Of its model."""
        return self.model.source.label


def side_results(sides: Sequence[RunningSide], baseline: str) -> list[SideResult]:
    """The results of some sides; ratios are not among them.

    Args:
        baseline: label of the model whose score in torch fp32 the others lose against.
    """
    references = {side.label: side for side in sides if side.side == REFERENCE}
    first = references.get(baseline)
    best = None if first is None else _scores(first)
    return [_result(side, references.get(side.label), best) for side in sides]


def _result(side: RunningSide, reference: RunningSide | None, best: Mapping[str, float] | None) -> SideResult:
    own, metric = _scores(side), None if side.model.texts is None else side.model.texts.task.metric
    compared = best is not None and own is not None and metric in best and metric in own
    return SideResult(
        model=side.label,
        engine=side.side.engine,
        precision=side.side.precision,
        version=package_version(side.side.engine),
        note=side.started["note"],
        disk_bytes=side.place.disk_bytes,
        load_seconds=side.started["seconds"],
        load_cpu_seconds=side.started["cpu_seconds"],
        memory_bytes=side.memory["resident"],
        peak_bytes=side.memory["peak"],
        timings=tuple(_timing(side, workload) for workload in side.model.workloads),
        error=None if reference is None else relative_error(side.logits, reference.logits),
        scores=own,
        loss=best[metric] - own[metric] if compared and best and own and metric else None,
    )


def _timing(side: RunningSide, workload: Workload) -> Timing:
    wall, cpu = side.wall[workload.name], side.cpu[workload.name]
    return Timing(
        workload=workload.name,
        batch=workload.batch,
        length=workload.length,
        tokens=workload.tokens,
        wall=distribution(wall),
        cpu=distribution(cpu),
        throughput=workload.batch * len(wall) / sum(wall),
    )


def _scores(side: RunningSide) -> dict[str, float] | None:
    texts = side.model.texts
    if texts is None:
        return None
    # A correlation of constant predictions is NaN, which JSON has no word for.
    return {name: value for name, value in texts.scores(side.logits).items() if math.isfinite(value)}


def relative_error(logits: Logits, reference: Logits) -> float:
    """Norm of the difference / norm of the reference, of [texts, labels]."""
    ours, theirs = torch.tensor(logits, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))


def task_figures(model: PreparedModel) -> TaskFigures | None:
    """The task of a model's texts; None without."""
    texts = model.texts
    if texts is None:
        return None
    used = sum(len(batch.labels) for batch in texts.evaluation)
    return TaskFigures(texts.task.name, texts.task.metric, used, len(texts.task.examples))


def package_versions(options: BenchOptions) -> dict[str, str]:
    """Package -> version of everything that takes part."""
    found = {name: package_version(name) for name in ("hydraprune", "torch", "transformers")}
    for engine in dict.fromkeys(options.engines):
        if engine in EXTRAS:
            try:
                found |= versions(EXTRAS[engine])
            except metadata.PackageNotFoundError:
                continue  # said among the failures
    return found


def package_version(package: str) -> str:
    """The version of a package, which has the name of its engine."""
    return __version__ if package == "hydraprune" else metadata.version(package)
