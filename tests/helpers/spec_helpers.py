"""Reports and planned runs built from flat values, the fields of their spec among them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from hydraprune.results.plan_file import Planned
from hydraprune.results.report import RunReport
from hydraprune.results.run_spec import RunSpec, split_spec

SPEC = {field.name for field in fields(RunSpec)}
Described = TypeVar("Described", RunReport, Planned)


def report_of(**values: Any) -> RunReport:
    """A report from the values that its report.json has."""
    spec, others = split_spec(values)
    return RunReport(spec, **others)


def planned_of(**values: Any) -> Planned:
    """A planned run from the values that plan.json has."""
    spec, others = split_spec(values)
    return Planned(spec, **others)


def changed(described: Described, **changes: Any) -> Described:
    """A copy with other values, those of its spec too."""
    own = {key: value for key, value in changes.items() if key in SPEC}
    others = {key: value for key, value in changes.items() if key not in SPEC}
    return replace(described, spec=replace(described.spec, **own), **others)
