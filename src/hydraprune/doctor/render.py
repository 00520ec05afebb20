"""Findings as one screen, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydraprune.doctor.result import Finding, State, worst

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {State.OK: "green", State.WARN: "yellow", State.BAD: "bold red"}


def screen(findings: Sequence[Finding], width: int | None) -> list[Text]:
    """A line for each that is well, two for each that is not, and a last line that says it all.

    Args:
        width: columns, to which longer lines are broken; None: whole lines.
    """
    from rich.text import Text

    room = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        style = _STYLES[finding.state]
        head = f"{finding.state.value:<4}  {finding.name:<{room}}  "
        first, *others = _broken(finding.found, len(head), width)
        lines.append(Text.assemble((head[:4], style), f"{head[4:]}{first}"))
        lines += [Text(" " * len(head) + line) for line in others]
        todo = _broken(f"-> {finding.todo}", len(head), width) if finding.todo else []
        lines += [Text(" " * len(head) + line, style) for line in todo]
    return [*lines, Text(_outcome(findings), _STYLES[worst(findings)])]


def _broken(text: str, indent: int, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, max(20, width - indent), break_on_hyphens=False) or [""]


def _outcome(findings: Sequence[Finding]) -> str:
    warned, broken = (sum(finding.state is state for finding in findings) for state in (State.WARN, State.BAD))
    if broken:
        return f"A run does not work here: {broken} to mend" + (f", {warned} to look at" if warned else "")
    return f"A run works here; {warned} to look at" if warned else "All is well: a run works here"


def as_json(findings: Sequence[Finding]) -> str:
    """For machines: the state of the whole, and of each check."""
    checks = [
        {"name": one.name, "state": one.state.value, "found": one.found, "todo": one.todo or None} for one in findings
    ]
    return json.dumps({"state": worst(findings).value, "checks": checks}, indent=2, ensure_ascii=False)
