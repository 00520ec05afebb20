"""The result of a check: its state, what was found, and a cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """OK; WARN: a run works, with a restriction; BAD: a run does not work."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


_BY_SEVERITY = list(State)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        found: what the check found.
        todo: the cure; empty if all is well.
        name: of the check; set by the runner.
    """

    state: State
    found: str
    todo: str = ""
    name: str = ""


def ok(found: str) -> Finding:
    """A finding with nothing to do."""
    return Finding(State.OK, found)


def warn(found: str, todo: str) -> Finding:
    """A finding that restricts a run."""
    return Finding(State.WARN, found, todo)


def bad(found: str, todo: str) -> Finding:
    """A finding that makes a run impossible."""
    return Finding(State.BAD, found, todo)


def merge(parts: Sequence[Finding]) -> Finding:
    """Several findings of one check as one, in the worst of their states."""
    todo = "; ".join(dict.fromkeys(part.todo for part in parts if part.todo))
    return Finding(worst(parts), ", ".join(part.found for part in parts if part.found), todo)


def worst(findings: Sequence[Finding]) -> State:
    """The worst state among findings; OK without any."""
    return max((finding.state for finding in findings), key=_BY_SEVERITY.index, default=State.OK)
