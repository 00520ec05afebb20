"""A tracker that fails or stands still, and the run that goes on."""

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
from hydraprune.tracking import About, Guarded, Outcome, Silent, WandB
from hydraprune.tracking import background as guarded

ABOUT = About(RunSpec("abc", "cell", "sparse", "m", "t", "p"), {}, Path(), 1)


class Noted(Silent):
    """Notes its calls and their threads; the method `stuck` waits for `abandon`, `broken` raises."""

    def __init__(self, stuck: str = "", broken: str = "") -> None:
        self.stuck, self.broken = stuck, broken
        self.calls: list[object] = []
        self.threads: set[int] = set()
        self.loose = threading.Event()

    def _note(self, name: str, what: object) -> None:
        self.calls.append(what)
        self.threads.add(threading.get_ident())
        if name == self.broken:
            raise RuntimeError("broken")
        if name == self.stuck:
            self.loose.wait(30)

    def start(self, about: About) -> None:
        self._note("start", "start")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._note("log", (dict(values), step))

    def end(self, outcome: Outcome) -> None:
        self._note("end", "end")

    def close(self, error: BaseException | None) -> None:
        self._note("close", "close")

    def abandon(self) -> None:
        self.loose.set()


def followed(tracker: Noted, logged: int) -> None:
    held = Guarded(tracker)
    held.start(ABOUT)
    values = {"a": 0.0}
    for step in range(logged):
        values["a"] = float(step)  # the caller's own, which it changes
        held.log(values, step)
    held.end(Outcome({}, Path()))
    held.close(None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_PATIENCE", 0.5)
    monkeypatch.setattr(guarded, "_MOMENT", 1.0)
    monkeypatch.setattr(guarded, "_WAITING", 10)


def test_all_in_order_and_in_one_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_MOMENT", 30.0)
    tracker = Noted()
    followed(tracker, 500)
    assert tracker.calls == ["start", *(({"a": float(step)}, step) for step in range(500)), "end", "close"]
    assert len(tracker.threads) == 1
    assert threading.get_ident() not in tracker.threads


@pytest.mark.parametrize("method", ["start", "log", "end", "close"])
def test_one_that_stands_still_is_given_up(method: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Noted(stuck=method)
    began = time.monotonic()
    followed(tracker, 30)
    assert time.monotonic() - began < 15
    (line,) = warned(caplog)
    assert line.startswith("tracker Noted gave up, the run goes on without it: it")
    assert tracker.calls[-1] == "close"
    assert ("end" in tracker.calls) == (method in ("end", "close"))


@pytest.mark.parametrize("method", ["start", "log", "end"])
def test_after_a_failure_only_close_is_called(method: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Noted(broken=method)
    followed(tracker, 3)
    assert tracker.calls.count("close") == 1
    assert tracker.calls[-1] == "close"
    assert len(tracker.calls) == {"start": 2, "log": 3, "end": 6}[method]
    (line,) = warned(caplog)
    assert line.endswith("RuntimeError: broken")


STALLED = """
import os, signal, sys, time
from pathlib import Path
from hydraprune.results.run_spec import RunSpec
from hydraprune.tracking import About, Guarded, WandB
from hydraprune.tracking import background as guarded, wandb_process as core

guarded._PATIENCE, guarded._MOMENT, core.AT_EXIT = 1.0, 5.0, 1.0
wandb = WandB("offline", finish_timeout=1.0)
tracker = Guarded(wandb)
tracker.start(About(RunSpec("abc", "c", "sparse", "m", "t", "p"), {}, Path(), 1))
os.kill(wandb._core.pid, signal.SIGSTOP)
for step in range(int(sys.argv[1])):
    tracker.log({"train/loss": 1.0}, step)
tracker.close(None)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by a signal")
@pytest.mark.parametrize("logged", [3, 100_000])
def test_a_wandb_core_that_stands_still_holds_up_neither_run_nor_exit(logged: int, workplace: Path) -> None:
    # Not a pipe: a process that was left behind would keep it open.
    with (workplace / "out").open("w") as out:
        done = subprocess.run([sys.executable, "-c", STALLED, str(logged)], stdout=out, stderr=out, timeout=60)
    said = (workplace / "out").read_text()
    assert done.returncode == 0, said
    (line,) = said.splitlines()
    assert line.startswith("tracker WandB gave up, the run goes on without it: it")


def test_a_cut_is_no_error_and_what_goes_on_has_none(workplace: Path) -> None:
    for error in (KeyboardInterrupt(), RuntimeError("bad"), None):
        tracker = WandB("offline")
        tracker.start(ABOUT)
        tracker.close(error)
    runs = {run.exit_code: run for run in map(read, folders(workplace))}
    assert set(runs) == {255, 1, 0}
    assert [runs[code].summary.get("error") for code in (255, 1, 0)] == [None, "RuntimeError: bad", None]
    # Sent after the failed one, it takes its error away.
    assert "error" in str(runs[0].of_type("summary"))
