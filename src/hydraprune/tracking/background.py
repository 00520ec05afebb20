"""A tracker that can neither end a run nor hold it up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping

from hydraprune.errors import one_line
from hydraprune.tracking.base import About, Outcome, RunTracker

log = logging.getLogger(__name__)

# Values that wait for the tracker before the training waits for it.
_WAITING = 1000
# Seconds: for room for one more value; for the start, or the end besides what the tracker itself asks for it.
_PATIENCE, _MOMENT, _TIDYING = 10.0, 30.0, 5.0


class Guarded:
    """Keeps a run from its tracker: what it raises is told once, and where it stands still it is given up.

    The tracker lives in a thread of its own, from its start to its close, and the training waits for it only so long.
    One that failed or was given up hears of the run's end only.

    Args:
        patience: seconds that `end` and `close` may take, besides half a minute each; None: the tracker's `patience`.
    """

    def __init__(self, tracker: RunTracker, patience: float | None = None) -> None:
        self._tracker = tracker
        self._patience = getattr(tracker, "patience", 0.0) if patience is None else patience
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._telling = threading.Lock()
        self._lost = False

    def start(self, about: About) -> None:
        # A daemon: a process can end though its tracker does not.
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()
        self._wait_for(lambda: self._tracker.start(about), _MOMENT, "start")

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._thread is None or self._lost:
            return
        kept = dict(values)
        try:
            self._calls.put(self._unless_lost(lambda: self._tracker.log(kept, step)), timeout=_PATIENCE)
        except queue.Full:
            self._abandon(f"it took nothing for {_PATIENCE:g} s")

    def end(self, outcome: Outcome) -> None:
        if self._thread is not None and not self._lost:
            self._wait_for(lambda: self._tracker.end(outcome), self._patience + _MOMENT, "end")

    def close(self, error: BaseException | None) -> None:
        if self._thread is None:
            return
        self._wait_for(lambda: self._tracker.close(error), self._patience + _MOMENT, "close", always=True)
        # Without a wait: where the queue is full, the thread is stuck, and stays so.
        if not self._calls.full():
            self._calls.put_nowait(None)
        self._thread = None

    def _wait_for(self, call: Callable[[], None], seconds: float, name: str, always: bool = False) -> None:
        done = threading.Event()

        def called() -> None:
            try:
                (self._guard(call) if always else self._unless_lost(call))()
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
            # Got loose, it may tidy up; a program that ends in the middle of that would say so.
            done.wait(_TIDYING)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _unless_lost(self, call: Callable[[], None]) -> Callable[[], None]:
        guarded = self._guard(call)
        return lambda: None if self._lost else guarded()

    def _guard(self, call: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                call()
            except BaseException as error:  # whatever somebody else's code raises; nobody else would hear of it
                self._lose(one_line(error))

        return guarded

    def _lose(self, why: str) -> None:
        with self._telling:
            told, self._lost = self._lost, True
        if not told:
            log.warning("tracker %s gave up, the run goes on without it: %s", type(self._tracker).__name__, why)

    def _abandon(self, why: str) -> None:
        """Give up a tracker that stands still; one with a method `abandon` is helped to get loose."""
        self._lose(why)
        loose = getattr(self._tracker, "abandon", None)
        if loose is not None:
            self._guard(loose)()
