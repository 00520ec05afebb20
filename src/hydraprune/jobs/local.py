"""`engine=here`: jobs as processes of this machine."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from hydraprune.jobs.base import SETTLED, JobCommand, check_counts
from hydraprune.utils import signals

log = logging.getLogger(__name__)

# Seconds between two looks at the processes.
_PERIOD = 0.1


@dataclass(frozen=True)
class Here:
    """Processes of this machine.

    A job that is killed takes none with it. A signal to the sweep is sent on to its jobs, which stop with a checkpoint.

    Args:
        at_once: jobs that run at a time; None: one.
        retries: how often a job that failed is started again, from its last checkpoint.
        stop_at_first_failure: whether no job starts after one has failed; those that run go on.
    """

    at_once: int | None = None
    retries: int = 0
    stop_at_first_failure: bool = False

    elsewhere = False
    leaves = False

    @property
    def workers(self) -> int:
        return self.at_once or 1

    def check(self) -> None:
        check_counts(self.at_once, self.retries)

    def opened(self) -> AbstractContextManager[object]:
        return nullcontext()

    def run(self, commands: Sequence[JobCommand], folder: Path) -> None:
        waiting, codes = list(range(len(commands))), dict[int, int]()
        running: dict[int, subprocess.Popen[bytes]] = {}
        tries = dict.fromkeys(waiting, 0)
        told = False
        while running or waiting:
            for number, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[number]
                if code not in SETTLED and tries[number] <= self.retries and not signals.is_stopping():
                    log.warning("%s ended with exit code %d: started again", commands[number].name, code)
                    waiting.insert(0, number)
                else:
                    codes[number] = code
            if signals.is_stopping() or (self.stop_at_first_failure and any(codes.values())):
                waiting = []
            if signals.is_stopping() and not told:
                told = True
                for process in running.values():
                    with suppress(ProcessLookupError):
                        process.terminate()
            waiting = [number for number in waiting if not is_lost(commands[number], codes)]
            for number in ready(waiting, commands, codes)[: self.workers - len(running)]:
                waiting.remove(number)
                tries[number] += 1
                running[number] = commands[number].start()
            time.sleep(_PERIOD)


def ready(waiting: Sequence[int], commands: Sequence[JobCommand], codes: Mapping[int, int]) -> list[int]:
    """Those that can start: the job that they need has ended."""
    return [number for number in waiting if commands[number].needs is None or commands[number].needs in codes]


def is_lost(command: JobCommand, codes: Mapping[int, int]) -> bool:
    """Whether the job that a command needs has failed."""
    return command.needs is not None and codes.get(command.needs, 0) != 0


def run_job(command: JobCommand, retries: int) -> int:
    """Run a job until it has ended, and again where it failed; for a worker of a pool.

    Where the worker is interrupted, the job is asked to stop, and waited for.

    Returns:
        The last exit code.
    """
    code = 0
    for _ in range(retries + 1):
        process = command.start()
        try:
            # In steps: an interrupt that is no signal, as Ray's, does not end a system call.
            while (code := process.poll()) is None:  # type: ignore[assignment]
                time.sleep(_PERIOD)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code in SETTLED or signals.is_stopping():
            break
    return code
