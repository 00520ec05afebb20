"""`report.json`: the one source of truth for every table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydraprune.results.run_spec import RunSpec, split_spec
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted

SCHEMA = 1
NAME = "report.json"
# Where a sweep keeps the reports of jobs that were refused before they began.
REFUSED = "refused"


@dataclass(frozen=True)
class RunReport:
    """What a run was, and what came of it. Fields as in docs/report.md; times are not part of a result."""

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
    examples: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    teacher: str | None = None
    threads: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    error: str | None = None
    from_step: int | None = None
    schema: int = SCHEMA

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "finished"

    def as_dict(self) -> dict[str, Any]:
        """The report as `report.json` has it: the fields of the spec stand beside the others."""
        values = asdict(self)
        del values["spec"]
        return {"status": values.pop("status"), **self.spec.as_dict(), **values}


def write_report(report: RunReport, directory: Path) -> None:
    """Write `report.json` into a run's directory, atomically."""
    write_text(directory / NAME, json.dumps(_finite(redacted(report.as_dict())), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no word for a number that is none: null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_report(directory: Path) -> RunReport | None:
    """The report in a run's directory; None when there is none that can be read."""
    try:
        text = (directory / NAME).read_text(encoding="utf-8")
        # NaN and Infinity, which others write, are null as in ours.
        values: Mapping[str, Any] = json.loads(text, parse_constant=lambda _: None)
        spec, others = split_spec(values)
        return RunReport(spec, **{key: others[key] for key in others if key in RunReport.__dataclass_fields__})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def finished_run(directory: Path, identity: str) -> RunReport | None:
    """The report of the run of that hash if it is finished and its model is there."""
    report = read_report(directory)
    whole = report is not None and report.finished and report.spec.hash == identity
    return report if whole and (directory / "model").is_dir() else None
