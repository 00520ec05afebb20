"""The report of a bench: what was measured, of what, and on which machine; to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from hydraprune.errors import UserError
from hydraprune.results.json_records import check_fields, damaged, read_record

NAME = "bench.json"
SCHEMA = 1
# The engine that computes zeros at no cost; to the others they are numbers like any other.
SPARSE_ENGINE = "hydraprune"
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Distribution:
    """Seconds of the counted calls: their number, mean, sample standard deviation (None for one) and percentiles."""

    n: int
    mean: float
    sd: float | None
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Timing:
    """One side on one workload.

    Args:
        workload: such as `batch 8, 128 tokens`, or `batch 8, sst2`.
        batch: texts of a call.
        length: tokens of every text; None for texts of the task, padded to the longest of their batch.
        tokens: of a text, padding included, on average.
        wall, cpu: of a call; CPU time is that of the whole process.
        throughput: texts a second of wall time.
        vs_fp32, vs_any: how many times faster than the best dense fp32 side, and than the best dense side.
    """

    workload: str
    batch: int
    length: int | None
    tokens: float
    wall: Distribution
    cpu: Distribution
    throughput: float
    vs_fp32: float | None = None
    vs_any: float | None = None


@dataclass(frozen=True)
class SideResult:
    """What was measured of one engine at one precision with one model.

    Args:
        model: a label of `BenchReport.models`.
        note: what the engine says of how it computes, where that is not plain.
        disk_bytes: of the files that the weights are loaded from.
        load_seconds, load_cpu_seconds: load and compile, libraries imported before.
        memory_bytes: resident after everything was computed, above that before the model was loaded.
        peak_bytes: the same at its highest; None where the system does not tell.
        error: relative error of the logits to torch fp32 of the same model; None without that side.
        scores: metric -> value on the task.
        loss: of the first metric, in the metric's units, to torch fp32 of the first model.
    """

    model: str
    engine: str
    precision: str
    version: str
    note: str | None
    disk_bytes: int
    load_seconds: float
    load_cpu_seconds: float
    memory_bytes: int
    peak_bytes: int | None
    timings: Sequence[Timing]
    error: float | None = None
    scores: Mapping[str, float] | None = None
    loss: float | None = None

    @property
    def is_dense(self) -> bool:
        """Whether zeros cost this engine as much as other numbers."""
        return self.engine != SPARSE_ENGINE


@dataclass(frozen=True)
class Failure:
    """A side that could not be measured, and why, in one line."""

    model: str
    engine: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Args:
        flags: those of avx2, avx512f, avx512_bf16, avx512_vnni, amx_tile, amx_bf16, amx_int8 that the CPU has.
        cores: logical.
        pinned: numbers of the cores that the engines were pinned to; None where the system cannot.
        load: averages of the last 1, 5 and 15 minutes at the start; None where the system has none.
    """

    cpu: str
    flags: Sequence[str]
    cores: int
    pinned: Sequence[int] | None
    memory_bytes: int
    load: Sequence[float] | None
    system: str


@dataclass(frozen=True)
class TaskFigures:
    """The task whose texts were used.

    Args:
        metric: the first of its metrics.
        examples: of the evaluation set, that the metrics are of.
        of: examples that the set has.
    """

    name: str
    metric: str
    examples: int
    of: int


@dataclass(frozen=True)
class BenchedRun:
    """The run that a model is of.

    Args:
        hash: of the run.
        folder: of the model in that of the run: `model`, or `model-slim` as `slim` writes it.
        weights: SHA-256 of the weights that the run had saved, at the time of the bench; None: there were none.
    """

    hash: str
    folder: str
    weights: str | None


@dataclass(frozen=True)
class BenchReport:
    """A finished bench.

    Args:
        models: label -> path or hub id; the first is what others are compared with.
        runs: label -> run, of those models that are in the folder of one.
        started: date and time, ISO 8601 with time zone.
        clock: `cpu` or `wall`: whose medians the ratios are of.
        calls: of a turn, of which the first is not counted.
        versions: package -> version.
    """

    models: Mapping[str, str]
    started: str
    machine: Machine
    threads: int
    rounds: int
    calls: int
    clock: str
    versions: Mapping[str, str]
    sides: Sequence[SideResult]
    failures: Sequence[Failure] = ()
    task: TaskFigures | None = None
    runs: Mapping[str, BenchedRun] = field(default_factory=dict)
    schema: int = field(default=SCHEMA)

    @property
    def workloads(self) -> list[str]:
        """Names of the workloads in the order of their measurement."""
        return list(dict.fromkeys(timing.workload for side in self.sides for timing in side.timings))

    def as_json(self) -> str:
        """The contents of bench.json."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


def read_bench(file: Path) -> BenchReport:
    """The report in a JSON file that `BenchReport.as_json` wrote.

    Raises:
        UserError: there is none, or it is damaged, or of another version.
    """
    values = read_record(file)
    if values is None:
        raise UserError("no such file", key=str(file), cure="give a bench.json that hydraprune bench --out wrote")
    return _checked(values, file)


def load_bench(folder: Path) -> BenchReport | None:
    """The bench.json in a folder; None if there is none, or if another program wrote a file of this name.

    Raises:
        UserError: it is damaged, or of another version.
    """
    values = read_record(folder / NAME)
    return _checked(values, folder / NAME) if values is not None and values.keys() >= _OWN else None


# Keys that tell a bench of ours from files of other programs.
_OWN = {"sides", "machine", "clock"}


def _checked(values: dict[str, Any], file: Path) -> BenchReport:
    if values.get("schema") != SCHEMA:
        raise UserError(f"is no bench of version {SCHEMA}", key=str(file), cure="measure again")
    try:
        return _report(values)
    except ValueError as error:
        raise damaged(file, str(error)) from None


def _report(values: dict[str, Any]) -> BenchReport:
    nested = {
        "clock": Literal["cpu", "wall"],
        "machine": dict[str, Any],
        "sides": list[dict[str, Any]],
        "failures": list[dict[str, Any]],
        "task": dict[str, Any] | None,
        "runs": dict[str, dict[str, Any]],
    }
    check_fields(values, BenchReport, nested)
    task = values.get("task")
    made = {
        "machine": _record(values["machine"], Machine),
        "sides": tuple(map(_side, values["sides"])),
        "failures": tuple(_record(item, Failure) for item in values.get("failures", ())),
        "task": None if task is None else _record(task, TaskFigures),
        "runs": {label: _record(run, BenchedRun) for label, run in values.get("runs", {}).items()},
    }
    return _record({**values, **made}, BenchReport, checked=True)


def _side(values: dict[str, Any]) -> SideResult:
    check_fields(values, SideResult, {"timings": list[dict[str, Any]]})
    return _record({**values, "timings": tuple(map(_timing, values["timings"]))}, SideResult, checked=True)


def _timing(values: dict[str, Any]) -> Timing:
    check_fields(values, Timing, dict.fromkeys(("wall", "cpu"), dict[str, Any]))
    both = {name: _record(values[name], Distribution) for name in ("wall", "cpu")}
    return _record({**values, **both}, Timing, checked=True)


def _record(values: dict[str, Any], cls: type[_Record], checked: bool = False) -> _Record:
    """A record of these values; keys without a field are left out, and lists become tuples."""
    if not checked:
        check_fields(values, cls, {})
    known = cls.__dataclass_fields__  # type: ignore[attr-defined]
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})
