"""Runs checks side by side, each with a time limit; one that fails or hangs becomes a finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hydraprune.doctor.result import Finding, State, warn
from hydraprune.utils.redaction import redacted
from hydraprune.utils.time_limit import BackgroundCall, TimeLimitError


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        seconds: its time limit.
        late: the state of the finding if it takes longer.
    """

    name: str
    run: Callable[[], Finding]
    seconds: float
    late: State = State.WARN


def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """Run all checks at once; returns when each has ended or exceeded its time limit. Findings contain no secrets."""
    begin = time.monotonic()
    running = [(check, BackgroundCall(check.run)) for check in checks]
    return [_finding(check, call, begin + check.seconds) for check, call in running]


def _finding(check: Check, call: BackgroundCall[Finding], deadline: float) -> Finding:
    try:
        found = call.result(deadline - time.monotonic())
    except TimeLimitError:
        cure = "try again; if the check hangs again, a run will hang there too"
        found = Finding(check.late, f"no answer within {check.seconds:g} s", cure)
    except ImportError as error:
        found = warn(f"not checked ({error})", "see versions and torch")
    except BaseException as error:  # a library may even call sys.exit
        found = warn(f"the check failed ({type(error).__name__}: {error})", "please report this line")
    shown, todo = (str(redacted(" ".join(text.split()))) for text in (found.found, found.todo))
    return replace(found, name=check.name, found=shown, todo=todo)
