"""Asked to stop: by Ctrl-C, or by a scheduler that wants the machine back.

A run that is asked stops between two steps, with a checkpoint; whatever else goes on stops at once, since the same
command does it again. Ctrl-C a second time ends the process on the spot.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import psutil

from hydraprune.errors import INTERRUPTED

# EX_TEMPFAIL of sysexits.h: nothing is wrong, to be started again. For batch scripts that requeue.
REQUEUE = 75

# SLURM sends SIGTERM before it takes a machine away, and SIGUSR1 (`--signal=USR1@120`) before time is up; a terminal
# that is closed sends SIGHUP.
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
# These only where somebody listens to them already: submitit requeues its jobs by SIGUSR2.
_NAMES_OF_OTHERS = ("SIGUSR2",)
# A cursor that a live view has hidden.
_CURSOR = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """What runs was asked to stop, and did. No `Exception`: nobody takes it for a failure.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        return "interrupted" if name == "SIGINT" else f"stopped by {name}"


def exit_code(error: KeyboardInterrupt) -> int:
    """Of a program that was stopped so: 130 for Ctrl-C, 75 where it is to be started again."""
    number = getattr(error, "number", signal.SIGINT)
    return INTERRUPTED if number == signal.SIGINT else REQUEUE


class _State:
    """Of this process: signals are its own, whoever asks."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the first signal that was put off
        self.deferred = 0  # how many want signals put off
        self.others: dict[int, Callable[[int, FrameType | None], Any]] = {}  # who listened before us
        self.workers: Callable[[], Any] | None = None  # tells processes of ours


_state = _State()


def listen() -> dict[int, Any]:
    """Take the signals of this process; nothing in a thread, where that cannot be.

    Somebody who listens already, as submitit does, is called when the checkpoint is there.

    Returns:
        Number -> who listened before, of the signals that are new to us.
    """
    taken: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return taken
    for name in (*_NAMES, *_NAMES_OF_OTHERS):
        number = getattr(signal, name, None)  # Windows knows few
        before = None if number is None else signal.getsignal(number)
        if number is None or before in (_heard, signal.SIG_IGN, None):
            continue
        if callable(before) and before is not signal.default_int_handler:
            _state.others[number] = before
        elif name in _NAMES_OF_OTHERS:
            continue
        taken[number] = signal.signal(number, _heard)
    return taken


def _restore(taken: dict[int, Any]) -> None:
    for number, before in taken.items():
        signal.signal(number, before)
        _state.others.pop(number, None)


def _heard(number: int, frame: FrameType | None) -> None:
    if not _state.deferred:
        leave(Stopped(number))
        return
    if _state.asked is not None:
        if number == signal.SIGINT:
            _end_now()
        return  # it stops already
    _state.asked = number
    if _state.workers is not None:
        _state.workers()
    if number not in _state.others:
        name = signal.Signals(number).name
        _say(f"{name}: stopping with a checkpoint" + "; Ctrl-C again ends it now" * (number == signal.SIGINT))


def _end_now() -> None:
    _say("ended; the same command resumes from the last checkpoint")
    if sys.stderr.isatty():
        with suppress(OSError):
            os.write(2, _CURSOR)
    os._exit(INTERRUPTED)


def _say(words: str) -> None:
    # Not print: the signal may have come in the middle of one. The terminal may be gone.
    with suppress(OSError):
        os.write(2, f"hydraprune: {words}\n".encode())


def asked() -> bool:
    """Whether this process was asked to stop, and has not yet."""
    return _state.asked is not None


def check() -> None:
    """To be called where nothing would be lost.

    Raises:
        Stopped: this process was asked to stop.
    """
    if _state.asked is not None:
        number, _state.asked = _state.asked, None
        raise Stopped(number)


def leave(error: Stopped) -> None:
    """To be called when all is kept; returns where who listened before us wants to go on.

    Raises:
        Stopped: nobody listened.
        SystemExit: or whatever else they end a process by.
    """
    other = _state.others.get(error.number)
    if other is None:
        raise error
    other(error.number, None)


@contextmanager
def at_work() -> Iterator[None]:
    """One job. A launcher's worker that has none is not ended by a signal: its pool would kill the others.

    Raises:
        Stopped: a worker that was asked to stop has been given another job.
    """
    worker = _is_worker()
    listen()
    if worker:
        _state.deferred = 0
    try:
        if worker:
            check()
        yield
    finally:
        if worker:
            _state.deferred = 1


def stay_stopped(error: Stopped) -> None:
    """For a worker, whose job ends quietly, as do all that it is given from now on.

    Raises:
        Stopped: this process is no worker.
    """
    if not _is_worker():
        raise error
    _state.asked = error.number


def _is_worker() -> bool:
    return multiprocessing.parent_process() is not None


def tell_workers() -> None:
    """Have the processes that this one has started stop as well; those who know already do not mind."""
    for worker in psutil.Process().children():
        with suppress(psutil.Error):
            worker.terminate()


@contextmanager
def deferred() -> Iterator[None]:
    """Put signals off until `check`, or until the end of this block.

    Raises:
        Stopped: at the end, if a signal came and nobody checked.
    """
    taken = listen()
    _state.deferred += 1
    try:
        yield
        if _state.deferred == 1 and _state.asked is not None:
            number, _state.asked = _state.asked, None
            leave(Stopped(number))
    finally:
        _state.deferred -= 1
        _restore(taken)


@contextmanager
def passed_on() -> Iterator[None]:
    """While workers of this process have the jobs: tell them, and leave when they have stopped.

    Raises:
        Stopped: at the end, if a signal came.
    """
    _state.workers = tell_workers
    try:
        with deferred():
            yield
    finally:
        _state.workers = None
