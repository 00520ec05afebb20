"""Findings as text for a terminal, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydraprune.doctor.result import Finding, State, worst

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {State.OK: "green", State.WARN: "yellow", State.BAD: "bold red"}


def as_lines(findings: Sequence[Finding], width: int | None) -> list[Text]:
    """A line per finding, one more for its cure, and a summary at the end.

    Args:
        width: columns at which lines are wrapped; None: not at all.
    """
    from rich.text import Text

    name_width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        style = _STYLES[finding.state]
        head = f"{finding.state.value:<4}  {finding.name:<{name_width}}  "
        first, *others = _wrapped(finding.found, len(head), width)
        lines.append(Text.assemble((head[:4], style), f"{head[4:]}{first}"))
        lines += [Text(" " * len(head) + line) for line in others]
        todo = _wrapped(f"-> {finding.todo}", len(head), width) if finding.todo else []
        lines += [Text(" " * len(head) + line, style) for line in todo]
    return [*lines, Text(_summary(findings), _STYLES[worst(findings)])]


def _wrapped(text: str, indent: int, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, max(20, width - indent), break_on_hyphens=False) or [""]


def _summary(findings: Sequence[Finding]) -> str:
    warnings, failures = (sum(finding.state is state for finding in findings) for state in (State.WARN, State.BAD))
    shown = f"{warnings} warning{'s' * (warnings != 1)}"
    if failures:
        return f"A run does not work here: {failures} to fix" + (f", {shown}" if warnings else "")
    return f"A run works here, with {shown}" if warnings else "All is well: a run works here"


def as_json(findings: Sequence[Finding]) -> str:
    """The overall state and all findings as JSON."""
    checks = [
        {"name": one.name, "state": one.state.value, "found": one.found, "todo": one.todo or None} for one in findings
    ]
    return json.dumps({"state": worst(findings).value, "checks": checks}, indent=2, ensure_ascii=False)
