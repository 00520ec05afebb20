"""Signals that stop a process: Ctrl-C, and those of a scheduler that preempts the job.

Training stops between two steps, with a checkpoint; everything else stops at once, since the same command repeats
it. A second Ctrl-C ends the process immediately.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from hydraprune.errors import INTERRUPTED

# EX_TEMPFAIL of sysexits.h: not a failure, start again. For batch scripts that requeue.
REQUEUE = 75

# SLURM sends SIGTERM before it takes a machine away, and SIGUSR1 (`--signal=USR1@120`) before the time limit; a
# terminal that is closed sends SIGHUP.
_HANDLED = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
# Handled only where another handler is installed: submitit requeues its jobs by SIGUSR2.
_HANDLED_IF_TAKEN = ("SIGUSR2",)
# Environment of a process that is to stop when a file appears: its path. It works on every machine that sees the file.
STOP_FILE = "HYDRAPRUNE_STOP_FILE"
# Seconds between two looks for it.
_PERIOD = 0.5
# Shows a cursor that a live view has hidden.
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """A signal stopped this process. Not an `Exception`, so that nothing treats it as a failure.

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
    """The exit code of a stopped program: 130 after Ctrl-C or by its stop file, 75 where it is to be started again."""
    number = getattr(error, "number", signal.SIGINT)
    return INTERRUPTED if number == signal.SIGINT or is_given_up() else REQUEUE


def is_given_up() -> bool:
    """Whether the stop file of this process is there: nobody wants it to go on."""
    file = os.environ.get(STOP_FILE)
    return bool(file) and Path(str(file)).exists()


def watch_stop_file() -> None:
    """Signal this process by SIGUSR1 once its stop file appears, if it has one."""
    if os.environ.get(STOP_FILE):
        threading.Thread(target=_wait_for_stop_file, daemon=True).start()


def _wait_for_stop_file() -> None:
    while not is_given_up():
        time.sleep(_PERIOD)
    # Not SIGINT, which is ignored below a shell's `&`.
    os.kill(os.getpid(), signal.SIGUSR1)


class _State:
    """Signal state of this process."""

    def __init__(self) -> None:
        self.received: int | None = None  # the first signal that was deferred
        self.deferred = 0  # how many blocks defer signals
        self.previous: dict[int, Callable[[int, FrameType | None], Any]] = {}  # handlers installed before ours
        self.forwarding = False  # whether worker processes run the jobs


_state = _State()


def listen() -> dict[int, Any]:
    """Install the handlers of this process; does nothing outside the main thread, where Python cannot.

    A handler that is installed already, as submitit's, is called once the checkpoint is written. An ignored
    signal stays ignored, as SIGHUP under nohup.

    Returns:
        Signal number -> previous handler, for the signals that were not handled yet.
    """
    taken: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return taken
    for name in (*_HANDLED, *_HANDLED_IF_TAKEN):
        number = getattr(signal, name, None)  # Windows has few of them
        before = None if number is None else signal.getsignal(number)
        if number is None or before in (_handle, signal.SIG_IGN, None):
            continue
        if callable(before) and before is not signal.default_int_handler:
            _state.previous[number] = before
        elif name in _HANDLED_IF_TAKEN:
            continue
        taken[number] = signal.signal(number, _handle)
    return taken


@contextmanager
def listening() -> Iterator[None]:
    """A context in which the handlers of this process are installed; those before are back afterwards."""
    taken = listen()
    try:
        yield
    finally:
        _restore(taken)


def _restore(taken: dict[int, Any]) -> None:
    for number, before in taken.items():
        signal.signal(number, before)
        _state.previous.pop(number, None)


def _handle(number: int, frame: FrameType | None) -> None:
    if not _state.deferred:
        stop(Stopped(number))
        return
    if _state.received is not None:
        if number == signal.SIGINT:
            _end_now()
        return  # stopping already
    _state.received = number
    if _state.forwarding:
        terminate_children()
    # One of several processes of a run speaks.
    if number not in _state.previous and os.environ.get("RANK", "0") == "0":
        name = signal.Signals(number).name
        _print(f"{name}: stopping with a checkpoint" + "; Ctrl-C again ends it now" * (number == signal.SIGINT))


def _end_now() -> None:
    _print("ended; the same command resumes from the last checkpoint")
    if sys.stderr.isatty():
        with suppress(OSError):
            os.write(2, _SHOW_CURSOR)
    os._exit(INTERRUPTED)


def _print(text: str) -> None:
    # Not `print`, which the signal may have interrupted. The terminal may be gone.
    with suppress(OSError):
        os.write(2, f"hydraprune: {text}\n".encode())


def check() -> None:
    """Stop here if a signal was received; to be called where nothing would be lost.

    Raises:
        Stopped: a signal was received.
    """
    if _state.received is not None:
        number, _state.received = _state.received, None
        raise Stopped(number)


def is_stopping() -> bool:
    """Whether a signal was received, and this process is about to stop."""
    return _state.received is not None


def received() -> int:
    """The number of the signal that was received and not checked for; 0 if there is none."""
    return _state.received or 0


def forget() -> None:
    """Treat the signal that was received as checked for."""
    _state.received = None


def stop(error: Stopped) -> None:
    """End what is running, now that everything is saved; returns if a handler installed before ours continues.

    Raises:
        Stopped: no handler was installed before ours.
        SystemExit: or whatever that handler raises.
    """
    previous = _state.previous.get(error.number)
    if previous is None:
        raise error
    previous(error.number, None)


@contextmanager
def job_scope() -> Iterator[None]:
    """One job. Between jobs, a launcher's worker is not ended by a signal: its pool would kill the other workers.

    Raises:
        Stopped: a worker that received a signal was given another job.
    """
    worker = _is_worker()
    # Those of a worker stay between jobs.
    taken = {} if worker else listen()
    if worker:
        listen()
        _state.deferred = 0
    try:
        if worker:
            check()
        yield
    finally:
        if worker:
            _state.deferred = 1
        _restore(taken)


def stay_stopped(error: Stopped) -> None:
    """In a worker: end this job quietly, and all that it is given from now on.

    Raises:
        Stopped: this process is not a worker.
    """
    if not _is_worker():
        raise error
    _state.received = error.number


def _is_worker() -> bool:
    return multiprocessing.parent_process() is not None


def terminate_children() -> None:
    """Send SIGTERM to the processes that this one started."""
    for worker in psutil.Process().children():
        with suppress(psutil.Error):
            worker.terminate()


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals until `check`, or until the end of this block.

    Raises:
        Stopped: at the end, if a signal was received and not checked for.
    """
    taken = listen()
    _state.deferred += 1
    try:
        yield
        if _state.deferred == 1 and _state.received is not None:
            number, _state.received = _state.received, None
            stop(Stopped(number))
    finally:
        _state.deferred -= 1
        _restore(taken)


@contextmanager
def forwarded() -> Iterator[None]:
    """While worker processes run the jobs: forward signals to them, and stop when they have stopped.

    Raises:
        Stopped: at the end, if a signal was received.
    """
    _state.forwarding = True
    try:
        with deferred():
            yield
    finally:
        _state.forwarding = False


def reset() -> None:
    """Forget received signals and other handlers; for processes that are forked, and tests."""
    _state.__init__()  # type: ignore[misc]
