"""W&B servers that are missing, hang or refuse: offline within a time limit, one warning, and the run continues."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from wandb_helpers import KEY, Accepting, Answering, about_of, folders, read, refusing, warned

from hydraprune.tracking import About, Guarded, WandB, wandb_auth, wandb_tracker

# The longest that a server may delay a run, in seconds.
LONGEST = 60.0


def about(directory: Path, **other: Any) -> About:
    return about_of(directory, **{"config": {"a": {"b": 1}}, **other})


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def server(kind: str, stack: ExitStack) -> str:
    """The URL of a server of that kind, which is closed at the end of the test."""
    if kind == "refuses":
        return refusing()
    made: Accepting | Answering
    if kind == "hangs":
        made = Accepting()
    elif kind == "answers only for /":
        made = Answering(root_only=True)
    else:
        made = Answering(int(kind))
    stack.callback(made.close)
    return made.url


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("mode", "kind", "cause"),
    [
        ("auto", "refuses", "cannot be reached"),
        ("online", "refuses", "cannot be reached"),
        ("auto", "hangs", "does not answer"),
        ("auto", "answers only for /", "context deadline exceeded"),
        ("auto", "500", "HTTP 500"),
        ("auto", "401", "401"),
        ("online", "403", "403"),
    ],
)
def test_with_an_unusable_server_a_run_is_offline_with_one_warning(
    mode: str,
    kind: str,
    cause: str,
    stack: ExitStack,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server(kind, stack))
    monkeypatch.setattr(wandb_tracker, "_INIT_TIMEOUT", 2.0)
    if kind == "hangs":  # a busy machine can take longer than this to be refused
        monkeypatch.setattr(wandb_auth, "_ANSWER_SECONDS", 1.0)
    tracker = WandB(mode)
    began = time.monotonic()
    tracker.start(about(workplace))
    assert time.monotonic() - began < LONGEST
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close(None)
    (line,) = warned(caplog)
    assert line.startswith("W&B: continuing offline: ")
    assert cause in line
    (offline,) = (folder for folder in folders(workplace) if folder.name.startswith("offline-run-"))
    assert f"`wandb sync {offline.relative_to(workplace)}` uploads the run later" in line
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")
    run = read(offline)
    assert run.run["run_id"] == "abc"
    assert run.history == [{"train/loss": 1, "step": 1}]


@pytest.mark.usefixtures("key")
def test_a_whole_run_with_a_server_that_hangs(
    stack: ExitStack,
    small: tuple[str, ...],
    train: Callable[..., Any],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server("hangs", stack))
    monkeypatch.setattr(wandb_auth, "_ANSWER_SECONDS", 1.0)
    done = train(*small[:4], "training.epochs=1", "pattern=dense", "tracker=wandb")
    assert done.code == 0, done.err
    assert "epoch 1, step 10 of 10" in done.out
    lines = [line for line in (done.out + done.err).splitlines() if "w&b" in line.lower() or "wandb" in line]
    assert len(lines) == 1
    assert "W&B: continuing offline: " in lines[0]
    (folder,) = folders(workplace)
    assert read(folder).exit_code == 0


TRACKED = """
import pathlib, time
from hydraprune.results.run_spec import RunSpec
from hydraprune.tracking import About, WandB, wandb_tracker

wandb_tracker._INIT_TIMEOUT = 2.0
tracker = WandB()
tracker.start(About(RunSpec("abc", "c", "sparse", "m", "t", "p"), {}, pathlib.Path("."), 1))
tracker.close(None)
print(time.time(), flush=True)
"""


@pytest.mark.usefixtures("key")
def test_a_server_that_hangs_does_not_delay_the_exit(
    workplace: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server("answers only for /", stack))
    # As in a new shell: quiet_settings has set it in this process.
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    done = subprocess.run([sys.executable, "-c", TRACKED], capture_output=True, text=True, check=True)
    # W&B's error reports would take 10 seconds here.
    assert time.time() - float(done.stdout) < 6


@pytest.mark.usefixtures("key")
def test_a_run_online(
    workplace: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wandb_server = Answering()
    stack.callback(wandb_server.close)
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    tracker = WandB()
    tracker.start(about(workplace))
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("hydraprune"))
    assert line == f"W&B: {wandb_server.url}/entity/project/runs/abc"
    for step in range(1, 50):
        tracker.log({"train/loss": 1 / step}, step)
    tracker.close(None)
    assert "UpsertBucket" in wandb_server.asked
    assert '\\"step\\":49' in wandb_server.sent
    assert [folder.name.startswith("run-") for folder in folders(workplace)] == [True]


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("end", ["hangs", "is gone"])
def test_a_server_lost_during_the_run_delays_its_end_by_the_time_limit_only(
    end: str,
    workplace: Path,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    wandb_server = Answering()
    stack.callback(wandb_server.close)
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    tracker = WandB(finish_timeout=2.0)
    tracker.start(about(workplace))
    tracker.log({"train/loss": 2.0}, 0)
    if end == "hangs":
        wandb_server.root_only = True
    else:
        wandb_server.die()
    began = time.monotonic()
    for step in range(1, 500):
        tracker.log({"train/loss": 1 / step}, step)
    tracker.close(None)
    assert time.monotonic() - began < LONGEST
    (folder,) = folders(workplace)
    (line,) = warned(caplog)
    assert "tracker.finish_timeout=2 s" in line
    assert f"`wandb sync --include-online {folder.relative_to(workplace)}` uploads the rest" in line
    assert capfd.readouterr() == ("", "")
    assert [item["step"] for item in read(folder).history] == list(range(500))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process in /proc")
def test_when_the_service_process_dies_this_run_and_the_next_continue(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Guarded(WandB("offline"))
    tracker.start(about(workplace))
    for process in children():
        if "wandb-core" in process.name:
            os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not any("wandb-core" in process.name for process in children()))
    for step in range(100):
        tracker.log({"train/loss": 1.0}, step)
        time.sleep(0.001)
    tracker.close(None)
    (line,) = warned(caplog)
    assert "The run continues without its tracker WandB" in line

    after = Guarded(WandB("offline"))
    after.start(about(workplace, hash="next"))
    after.log({"train/loss": 1.0}, 1)
    after.close(None)
    (following,) = (folder for folder in folders(workplace) if folder.name.endswith("-next"))
    assert read(following).history == [{"train/loss": 1, "step": 1}]


class Process:
    """A process, from /proc."""

    def __init__(self, folder: Path) -> None:
        self.pid = int(folder.name)
        # pid (name) state parent ...
        name, rest = (folder / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        self.name, (self.state, parent, *_) = name, rest.split()
        self.parent = int(parent)


def children() -> list[Process]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            process = Process(folder)
        except OSError:
            continue
        if process.parent == os.getpid() and process.state != "Z":
            found.append(process)
    return found


def wait_until(state: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.01)
