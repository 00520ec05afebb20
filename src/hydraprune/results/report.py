"""`report.json`: the report of a run, from which all tables are made."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from hydraprune.errors import UserError
from hydraprune.results.json_records import check_fields, damaged, read_record
from hydraprune.results.run_spec import RunSpec, is_described, split_spec
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted
from hydraprune.utils.weights_files import missing_weights

SCHEMA = 1
NAME = "report.json"
# Subfolder of a sweep for the reports of jobs that were refused before they started.
REFUSED = "refused"


@dataclass(frozen=True)
class RunReport:
    """The description and results of a run; fields as in docs/report.md."""

    spec: RunSpec
    status: str
    metric: str | None = None
    final: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, float | None] = field(default_factory=dict)
    dense: dict[str, Any] | None = None
    units: dict[str, int] | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    sparsity: dict[str, Any] | None = None
    pattern_ok: bool | None = None
    steps: int | None = None
    sparse_steps: dict[str, float] | None = None
    sparse_gain: float | None = None
    examples: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    teacher: str | None = None
    threads: int | None = None
    processes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    error: str | None = None
    from_step: int | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    data: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    coverage: dict[str, Any] | None = None
    schema: int = SCHEMA

    @property
    def finished(self) -> bool:
        """Whether the run has finished."""
        return self.status == "finished"

    @property
    def stopped(self) -> bool:
        """Whether a study stopped it early."""
        return self.status == "stopped"

    def as_dict(self) -> dict[str, Any]:
        """The contents of `report.json`, in which the fields of the spec are at the top level."""
        values = asdict(self)
        del values["spec"]
        return {"status": values.pop("status"), **self.spec.as_dict(), **values}


def write_report(report: RunReport, directory: Path) -> None:
    """Write `report.json` into a run's directory, atomically."""
    write_text(directory / NAME, json.dumps(_without_nan(redacted(report.as_dict())), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    """NaN and inf become null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Part(TypedDict, total=False):
    """A pruner in `parts`; reports of earlier versions have fewer keys."""

    pattern: str
    criterion: str | None
    scheduler: str
    scope: str | None
    target_sparsity: float | None
    sparsity: float
    units: dict[str, int]
    pattern_ok: bool
    weights: list[str]


class _Shares(TypedDict):
    prunable: float
    linear: float
    model: float


class _Sparsity(_Shares, total=False):
    per_layer: dict[str, float]


_SHAPES: dict[str, Any] = {
    "status": Literal["started", "finished", "failed", "stopped"],
    "dense": dict[str, float | str | None] | None,
    "parts": dict[str, _Part],
    "sparsity": _Sparsity | None,
}


def load_report(directory: Path) -> RunReport | None:
    """The report in a run's directory; None if there is none, or if another program wrote a file of this name.

    Raises:
        UserError: it is damaged: naming the file, and the value that no report has.
    """
    values = read_record(directory / NAME)
    if values is None or not is_described(values):
        return None
    try:
        check_fields({"spec": None, **values}, RunReport, {"spec": Any, **_SHAPES})
        spec, others = split_spec(values)
        if values["status"] == "finished" and not (spec.hash and spec.cell and spec.phase):
            raise ValueError("a finished run has a hash, a cell and a phase")
    except ValueError as error:
        raise damaged(directory / NAME, str(error)) from None
    return RunReport(spec, **{key: others[key] for key in others if key in RunReport.__dataclass_fields__})


def read_report(directory: Path) -> RunReport | None:
    """The report in a run's directory; None if there is none, or if it is damaged."""
    try:
        return load_report(directory)
    except UserError:
        return None


def finished_run(directory: Path, identity: str) -> RunReport | None:
    """The report in a run's directory if it has that hash, is finished and its model is whole."""
    report = read_report(directory)
    complete = report is not None and report.finished and report.spec.hash == identity
    return report if complete and missing_weights(directory / "model") is None else None
