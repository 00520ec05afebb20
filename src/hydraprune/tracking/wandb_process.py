"""W&B's service process, `wandb-core`: ending it, and limiting how long it can delay our exit."""

from __future__ import annotations

import atexit
import logging
import subprocess
import threading
from contextlib import suppress
from typing import Any

from hydraprune.utils.time_limit import TimeLimitError, call_within

log = logging.getLogger(__name__)

# Seconds that it has to end by itself when this process exits; W&B would wait without a limit.
EXIT_SECONDS = 15.0

_limited: set[int] = set()


def service_process() -> Any:
    """The `subprocess.Popen` of the service that W&B started for this process; None if there is none."""
    # W&B has no public way to it. Where a version is built differently we have no process, and wait as W&B does.
    with suppress(AttributeError, ImportError):
        from wandb.sdk import wandb_setup

        return wandb_setup._singleton._connection._proc._process  # type: ignore[union-attr]
    return None


def limit_exit(process: Any) -> None:
    """Kill `process` if it has not ended `EXIT_SECONDS` after this process starts to exit."""
    if process is None or process.pid in _limited:
        return
    _limited.add(process.pid)
    exiting = threading.Event()

    def watch() -> None:
        exiting.wait()
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    # Started now: an exiting interpreter cannot start threads.
    threading.Thread(target=watch, name="wandb-core at exit", daemon=True).start()
    # Registered after W&B's own exit handler, and so called before it.
    atexit.register(exiting.set)


def end_service() -> None:
    """End the service, which would keep the id of a failed run, or is dead; the next run starts another."""
    import wandb

    process = service_process()
    try:
        # W&B waits for it without a limit.
        call_within(EXIT_SECONDS, wandb.teardown)
    except TimeLimitError:
        if process is not None:
            process.kill()
    except (Exception, SystemExit):
        log.debug("wandb.teardown failed", exc_info=True)
