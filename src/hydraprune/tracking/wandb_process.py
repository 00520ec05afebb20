"""W&B's own process, `wandb-core`: ending it, and keeping it from holding us up."""

from __future__ import annotations

import atexit
import subprocess
import threading
from contextlib import suppress
from typing import Any

# Seconds that it has to end by itself when this process ends; W&B would wait for ever.
AT_EXIT = 15.0

_watched: set[int] = set()


def own_process() -> Any:
    """The process that W&B started for this one, a `subprocess.Popen`; None when there is none, or it is another's."""
    # No public name leads there: of a W&B that is built otherwise we have no process, and wait as W&B does.
    with suppress(AttributeError, ImportError):
        from wandb.sdk import wandb_setup

        return wandb_setup._singleton._connection._proc._process  # type: ignore[union-attr]
    return None


def watch_exit(process: Any) -> None:
    """See to it that `process` does not hold up the end of this one longer than `AT_EXIT`."""
    if process is None or process.pid in _watched:
        return
    _watched.add(process.pid)
    leaving = threading.Event()

    def watch() -> None:
        leaving.wait()
        try:
            process.wait(AT_EXIT)
        except subprocess.TimeoutExpired:
            process.kill()

    # A thread that is there already: at its end an interpreter may start no more.
    threading.Thread(target=watch, name="wandb-core at exit", daemon=True).start()
    # Registered after W&B's own waiting, and so called before it.
    atexit.register(leaving.set)


def start_anew() -> None:
    """End the process: it would hold the id of a run that failed, or is dead. The next run gets another."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()
