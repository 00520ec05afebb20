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

# What a shell reports of a program ended by Ctrl-C: 128 + SIGINT.
INTERRUPTED = 130
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


def listen() -> None:
    """Take the signals of this process, once; nothing in a thread, where that cannot be.

    Somebody who listens already, as submitit does, is called when the checkpoint is there.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in (*_NAMES, *_NAMES_OF_OTHERS):
        number = getattr(signal, name, None)  # Windows knows few
        before = None if number is None else signal.getsignal(number)
        if number is None or before in (_heard, signal.SIG_IGN, None):
            continue
        if callable(before) and before is not signal.default_int_handler:
            _state.others[number] = before
        elif name in _NAMES_OF_OTHERS:
            continue
        signal.signal(number, _heard)


def _heard(number: int, frame: FrameType | None) -> None:
    if not _state.deferred:
        _leave(number)
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


def _leave(number: int) -> None:
    other = _state.others.get(number)
    if other is None:
        raise Stopped(number)
    other(number, None)


def _end_now() -> None:
    _say("ended; the same command goes on from the last checkpoint")
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
        # Who listened before us may end the process, or have us go on.
        _leave(number)


def stay_stopped(error: Stopped) -> None:
    """For a job of a launcher's worker, which ends quietly, as do all that wait behind it: the next `check` raises.

    A job that raised would have the pool kill the others while they stop.

    Raises:
        Stopped: this process is no worker.
    """
    if multiprocessing.parent_process() is None:
        raise error
    _state.asked = error.number


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
    listen()
    _state.deferred += 1
    try:
        yield
    finally:
        _state.deferred -= 1
    if not _state.deferred:
        check()


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
