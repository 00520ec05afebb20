"""What was looked at, what was found, what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it stands: well; a run works, but; a run does not."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


_ORDER = list(State)


@dataclass(frozen=True)
class Finding:
    """Of one check.

    Args:
        found: as it is.
        todo: what to do; empty when all is well.
        name: of the check; whoever runs it knows.
    """

    state: State
    found: str
    todo: str = ""
    name: str = ""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(State.OK, found)


def warn(found: str, todo: str) -> Finding:
    """A run works, but."""
    return Finding(State.WARN, found, todo)


def bad(found: str, todo: str) -> Finding:
    """A run does not work."""
    return Finding(State.BAD, found, todo)


def together(parts: Sequence[Finding]) -> Finding:
    """Several things about one subject, as bad as the worst of them."""
    todo = "; ".join(dict.fromkeys(part.todo for part in parts if part.todo))
    return Finding(worst(parts), ", ".join(part.found for part in parts if part.found), todo)


def worst(findings: Sequence[Finding]) -> State:
    """The worst state among them."""
    return max((finding.state for finding in findings), key=_ORDER.index, default=State.OK)
