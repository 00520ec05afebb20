"""Trackers in their own threads: one that fails or hangs is dropped, and the run continues."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from wandb_helpers import folders, read, warned

from hydraprune.results.run_spec import RunSpec
from hydraprune.tracking import About, BaseTracker, Guarded, Outcome, Several, WandB, guarded
from hydraprune.tracking.background import Limits

ABOUT = About(RunSpec("abc", "cell", "sparse", "m", "t", "p"), {}, Path(), 1)


# Short limits for trackers that hang.
SHORT = Limits(queued=10, log=0.1, start=0.2, end=0.2, cleanup=5.0)


class Recorder(BaseTracker):
    """Records its calls and their threads; the method `stuck` waits for `abandon`, `broken` raises."""

    def __init__(self, stuck: str = "", broken: str = "") -> None:
        self.stuck, self.broken = stuck, broken
        self.calls: list[object] = []
        self.threads: set[int] = set()
        self.abandoned = threading.Event()

    def _record(self, name: str, call: object) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        if name == self.broken:
            raise RuntimeError("broken")
        if name == self.stuck:
            self.abandoned.wait(30)

    def start(self, about: About) -> None:
        self._record("start", "start")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._record("log", (dict(values), step))

    def end(self, outcome: Outcome) -> None:
        self._record("end", "end")

    def close(self, error: BaseException | None) -> None:
        self._record("close", "close")

    def abandon(self) -> None:
        self.abandoned.set()


def track(tracker: Recorder, logged: int, limits: Limits | None = None) -> None:
    background = Guarded(tracker, limits)
    background.start(ABOUT)
    values = {"a": 0.0}
    for step in range(logged):
        values["a"] = float(step)  # the caller reuses its dict
        background.log(values, step)
    background.end(Outcome({}, Path()))
    background.close(None)


def test_all_calls_in_order_in_one_other_thread() -> None:
    tracker = Recorder()
    track(tracker, 500)
    assert tracker.calls == ["start", *(({"a": float(step)}, step) for step in range(500)), "end", "close"]
    assert len(tracker.threads) == 1
    assert threading.get_ident() not in tracker.threads


@pytest.mark.parametrize("method", ["start", "log", "end", "close"])
def test_a_tracker_that_hangs_is_dropped(method: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Recorder(stuck=method)
    start = time.monotonic()
    track(tracker, 30, SHORT)
    assert time.monotonic() - start < 15
    (line,) = warned(caplog)
    assert line.startswith("The run continues without its tracker Recorder: it")
    assert tracker.calls[-1] == "close"
    assert ("end" in tracker.calls) == (method in ("end", "close"))


@pytest.mark.parametrize("method", ["start", "log", "end"])
def test_after_a_failure_only_close_is_called(method: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Recorder(broken=method)
    track(tracker, 3)
    assert tracker.calls.count("close") == 1
    assert tracker.calls[-1] == "close"
    assert len(tracker.calls) == {"start": 2, "log": 3, "end": 6}[method]
    (line,) = warned(caplog)
    assert line.endswith("RuntimeError: broken")


def test_several_trackers_do_not_affect_each_other(caplog: pytest.LogCaptureFixture) -> None:
    broken, stuck, working = Recorder(broken="start"), Recorder(stuck="log"), Recorder()
    tracker = guarded(Several([broken, Several([stuck, working])]))
    tracker.start(ABOUT)
    tracker.log({"a": 1.0}, 1)
    stuck.abandoned.set()
    tracker.end(Outcome({}, Path()))
    tracker.close(None)
    assert broken.calls == ["start", "close"]
    assert stuck.calls == working.calls == ["start", ({"a": 1.0}, 1), "end", "close"]
    threads = broken.threads | stuck.threads | working.threads
    assert len(threads) == 3
    assert len(warned(caplog)) == 1


STALLED = """
import os, signal, sys, time
from pathlib import Path
from hydraprune.results.run_spec import RunSpec
from hydraprune.tracking import About, Guarded, WandB, wandb_process
from hydraprune.tracking.background import Limits

wandb_process.EXIT_SECONDS = 0.5
wandb = WandB("offline", finish_timeout=0.5)
tracker = Guarded(wandb, Limits(log=0.5, end=1.0))
tracker.start(About(RunSpec("abc", "c", "sparse", "m", "t", "p"), {}, Path(), 1))
os.kill(wandb._service.pid, signal.SIGSTOP)
for step in range(int(sys.argv[1])):
    tracker.log({"train/loss": 1.0}, step)
tracker.close(None)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by a signal")
@pytest.mark.parametrize("logged", [3, 100_000])
def test_a_wandb_core_that_hangs_delays_neither_run_nor_exit(logged: int, workplace: Path) -> None:
    # Not a pipe, which a leftover process would keep open.
    with (workplace / "out").open("w") as out:
        done = subprocess.run([sys.executable, "-c", STALLED, str(logged)], stdout=out, stderr=out, timeout=60)
    printed = (workplace / "out").read_text()
    assert done.returncode == 0, printed
    (line,) = printed.splitlines()
    assert line.startswith("The run continues without its tracker WandB: it")


def test_an_interruption_is_not_an_error_and_resuming_clears_an_earlier_one(workplace: Path) -> None:
    for error in (KeyboardInterrupt(), RuntimeError("bad"), None):
        tracker = WandB("offline")
        tracker.start(ABOUT)
        tracker.close(error)
    runs = {run.exit_code: run for run in map(read, folders(workplace))}
    assert set(runs) == {255, 1, 0}
    assert [runs[code].summary.get("error") for code in (255, 1, 0)] == [None, "RuntimeError: bad", None]
    # Uploaded after the failed one, it removes its error.
    assert "error" in str(runs[0].of_type("summary"))
