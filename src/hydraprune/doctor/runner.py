"""Checks side by side, each with its own time; one that fails or hangs is a finding like any other."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from hydraprune.doctor.result import Finding, State, warn

T = TypeVar("T")

# Names of variables whose values nobody may read.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
# A shorter value is no secret, and occurs by chance: `1`, `true`.
_SHORTEST = 6
_USER_OF_URL = re.compile(r"(?<=://)[^/\s@]*@")


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Args:
        seconds: after which it is left alone.
        late: how bad it is when it takes longer.
    """

    name: str
    look: Callable[[], Finding]
    seconds: float
    late: State = State.WARN


def look(checks: Sequence[Check]) -> list[Finding]:
    """All of them at once; returns when the last has ended or its time is over."""
    begun = time.monotonic()
    running = [(check, Later(check.look)) for check in checks]
    return [_finding(check, later, begun + check.seconds) for check, later in running]


def _finding(check: Check, later: Later[Finding], until: float) -> Finding:
    try:
        found = later.result(until - time.monotonic())
    except LateError:
        hangs = "try again; if it stays so, a run hangs there too"
        found = Finding(check.late, f"no answer within {check.seconds:g} s", hangs)
    except ImportError as error:
        found = warn(f"not looked at ({error})", "see versions and torch")
    except BaseException as error:  # a library may even exit
        why = " ".join(f"{type(error).__name__}: {error}".split())
        found = warn(f"could not be looked at ({why})", "please report this line")
    shown, todo = redacted(found.found, os.environ), redacted(found.todo, os.environ)
    return replace(found, name=check.name, found=shown, todo=todo)


class LateError(Exception):
    """A call has not ended in its time."""


class Later(Generic[T]):
    """A call in a thread of its own, which nobody waits for at the end of the program."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._outcome: list[T | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._outcome.append(call())
        except BaseException as error:
            self._outcome.append(error)

    def result(self, seconds: float) -> T:
        """What the call returned or raised.

        Raises:
            LateError: it has not within so many seconds.
        """
        self._thread.join(max(0.0, seconds))
        if not self._outcome:
            raise LateError(f"no answer within {seconds:g} s")
        (outcome,) = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def redacted(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the values of variables that are called like secrets, and without the users of addresses."""
    secrets = [value for name, value in environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USER_OF_URL.sub("***@", text)
