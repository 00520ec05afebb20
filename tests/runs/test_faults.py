"""Disk faults: an error in one line, and a last good state that can be resumed from."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_helpers import Ask, left, log_of, same_bits

from hydraprune.errors import UserError
from hydraprune.runs import run as runs
from hydraprune.tracking import JsonLines
from hydraprune.training import checkpoints, loop
from hydraprune.utils.tensor_io import StateError, read_state, write_state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits forked processes")

FLIPS, CUTS = 300, 60


@pytest.fixture(autouse=True)
def as_on_the_command_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


def in_a_process(call: Callable[[], Any], message: Path) -> int:
    """Call in a forked process; returns its exit code and writes the error that it raised to `message`."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(120)
            call()
            os._exit(0)
        except BaseException as error:
            message.write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("size", [200, 200_000], ids=["less than a line", "less than a checkpoint"])
def test_a_full_disk(size: int, ask: Ask, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """The system refuses every byte of a file beyond `size`."""
    record_property("faults", (1, "reported in one line, nothing lost"))
    experiment = ask("pattern=dense", "training.log_every=1")
    runs.execute(experiment)
    whole = left(experiment.directory)
    experiment.directory.rename("whole")

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        logging.getLogger().handlers.clear()
        runs.execute(experiment)

    assert in_a_process(limited, tmp_path / "message") == 1
    message = (tmp_path / "message").read_text()
    assert message.startswith("UserError: "), message
    assert "File too large" in message
    assert "the same command resumes" in message
    assert not (experiment.directory / "model").exists()
    runs.execute(experiment)
    now = left(experiment.directory)
    assert now[:2] == whole[:2]
    assert same_bits(now[2], whole[2])


def test_a_run_folder_removed_while_training(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    record_property("faults", (1, "reported in one line, nothing lost"))
    experiment = ask("pattern=dense", "training.log_every=1")
    step = loop.take_step

    def vanishes(run: Any, batches: Any, now: int, clock: Any) -> Any:
        if now == 9:
            shutil.rmtree(experiment.directory)
        return step(run, batches, now, clock)

    monkeypatch.setattr(loop, "take_step", vanishes)
    with pytest.raises(UserError, match=r"metrics\.jsonl \(was removed or replaced while the run wrote it"):
        runs.execute(experiment)
    assert not experiment.directory.exists()
    monkeypatch.setattr(loop, "take_step", step)
    assert runs.execute(experiment).finished


def test_a_file_system_that_becomes_read_only(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """From the tenth step on. The error is simulated, since root may write anywhere."""
    record_property("faults", (1, "reported in one line, nothing lost"))
    experiment = ask("pattern=dense", "training.log_every=7")
    lines = JsonLines.log

    def refused(self: JsonLines, values: Any, step: int) -> None:
        if step > 10:
            raise PermissionError(30, "Read-only file system", str(experiment.directory / "metrics.jsonl"))
        lines(self, values, step)

    monkeypatch.setattr(JsonLines, "log", refused)
    with pytest.raises(UserError, match=r"metrics\.jsonl \(Read-only file system\); fix that, and the same command"):
        runs.execute(experiment)
    kept = [path.name for path in (experiment.directory / "checkpoints").iterdir()]
    assert sorted(kept) == ["step-000000008.safetensors", "step-000000012.safetensors"]
    monkeypatch.setattr(JsonLines, "log", lines)
    assert runs.execute(experiment).finished
    assert "Resuming from step 12 of 30" in log_of(experiment.directory)


def test_every_damaged_checkpoint_is_refused(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Random flipped bits and truncated files: never a wrong state, never another error."""
    record_property("faults", (FLIPS + CUTS, "reported in one line, nothing lost"))
    place, draw = tmp_path / "step-000000001.safetensors", random.Random(0)
    state = {"step": 1, "words": ["é", None, 0.1], "model": {"w": torch.randn(7, 5), "h": torch.ones(3).half()}}
    write_state(state, {"run": "a"}, place)
    good = place.read_bytes()
    header = int.from_bytes(good[:8], "little") + 8
    for number in range(FLIPS):
        damaged = bytearray(good)
        # Half of them in the header of the format.
        where = draw.randrange(header if number % 2 else len(good))
        damaged[where] ^= 1 << draw.randrange(8)
        refused(place, bytes(damaged), f"bit {where}")
    for _ in range(CUTS):
        length = draw.randrange(len(good))
        refused(place, good[:length], f"cut at {length}")
        refused(place, good[:length] + bytes(len(good) - length), f"zeros from {length}")
    place.write_bytes(good)
    assert read_state(place, {"run": "a"})["words"] == state["words"]


def refused(place: Path, contents: bytes, how: str) -> None:
    place.write_bytes(contents)
    try:
        found = read_state(place, {"run": "a"})
    except (StateError, OSError):
        return
    raise AssertionError(f"{how}: read as {json.dumps(found, default=str)}")
