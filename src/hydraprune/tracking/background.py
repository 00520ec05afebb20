"""Runs a tracker in a thread of its own, so that it can neither end nor delay a run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hydraprune.errors import one_line
from hydraprune.tracking.base import About, Outcome, RunTracker
from hydraprune.tracking.trackers import Several

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long a run waits for its tracker.

    Args:
        queued: calls of `log` that may wait for the tracker; beyond that the training waits.
        log: seconds until a call of `log` finds room in the queue.
        start: seconds for `start`.
        end: seconds for each of `end` and `close`, on top of the tracker's `patience`.
        cleanup: seconds for a call that was abandoned to return.
    """

    queued: int = 1000
    log: float = 10.0
    start: float = 30.0
    end: float = 30.0
    cleanup: float = 5.0


def guarded(tracker: RunTracker) -> RunTracker:
    """`tracker` in a thread of its own; each tracker of `Several` in its own, so that one cannot affect the others."""
    if isinstance(tracker, Several):
        return Several([guarded(each) for each in tracker.trackers])
    return Guarded(tracker)


class Guarded:
    """Calls a tracker in a daemon thread. After an error or a time-out it only gets the call of `close`.

    Not a `utils.time_limit.BackgroundCall`: all calls of one tracker share one thread and keep their order.
    """

    def __init__(self, tracker: RunTracker, limits: Limits | None = None) -> None:
        self._tracker = tracker
        self._limits = limits or Limits()
        self._patience: float = getattr(tracker, "patience", 0.0)
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(self._limits.queued)
        self._thread: threading.Thread | None = None
        self._warning = threading.Lock()
        self._dropped = False

    def start(self, about: About) -> None:
        # A daemon: the process can exit though the tracker hangs.
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()
        self._call(lambda: self._tracker.start(about), self._limits.start, "start")

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._thread is None or self._dropped:
            return
        copied = dict(values)
        try:
            call = self._unless_dropped(lambda: self._tracker.log(copied, step))
            self._calls.put(call, timeout=self._limits.log)
        except queue.Full:
            self._abandon(f"its queue was full for {self._limits.log:g} s")

    def end(self, outcome: Outcome) -> None:
        if self._thread is not None and not self._dropped:
            self._call(lambda: self._tracker.end(outcome), self._patience + self._limits.end, "end")

    def close(self, error: BaseException | None) -> None:
        if self._thread is None:
            return
        self._call(lambda: self._tracker.close(error), self._patience + self._limits.end, "close", always=True)
        # Without waiting: if the queue is full, the thread hangs.
        if not self._calls.full():
            self._calls.put_nowait(None)
        self._thread = None

    def _call(self, call: Callable[[], None], seconds: float, name: str, always: bool = False) -> None:
        """Queue a call and wait for it, at most so many seconds; `always`: even if the tracker was dropped."""
        done = threading.Event()

        def called() -> None:
            try:
                (self._caught(call) if always else self._unless_dropped(call))()
            finally:
                done.set()

        deadline = time.monotonic() + seconds
        try:
            self._calls.put(called, timeout=seconds)
        except queue.Full:
            self._abandon(f"its {name} had not begun after {seconds:g} s")
            return
        if not done.wait(max(0.0, deadline - time.monotonic())):
            self._abandon(f"its {name} took more than {seconds:g} s")
            # Interrupted, it may clean up; an exit in the middle of that would print errors.
            done.wait(self._limits.cleanup)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _unless_dropped(self, call: Callable[[], None]) -> Callable[[], None]:
        caught = self._caught(call)
        return lambda: None if self._dropped else caught()

    def _caught(self, call: Callable[[], None]) -> Callable[[], None]:
        def caught() -> None:
            try:
                call()
            except BaseException as error:  # anything that a user's tracker raises; nobody else would see it
                self._drop(one_line(error))

        return caught

    def _drop(self, why: str) -> None:
        with self._warning:
            warned, self._dropped = self._dropped, True
        if not warned:
            log.warning("The run continues without its tracker %s: %s", type(self._tracker).__name__, why)

    def _abandon(self, why: str) -> None:
        """Drop a tracker that hangs, and interrupt it if it has a method `abandon`."""
        self._drop(why)
        interrupt = getattr(self._tracker, "abandon", None)
        if interrupt is not None:
            self._caught(interrupt)()
