"""Runs that are killed and resumed end with the same bits as runs that were not interrupted."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cut_helpers import WORDS, Ask, at_step, die, interrupted, killed, left, log_of, same_bits
from experiment_helpers import dense_run

from hydraprune.errors import UserError
from hydraprune.runs import run as runs
from hydraprune.runs import setup
from hydraprune.sweeps.lookup import look
from hydraprune.tracking import JsonLines
from hydraprune.training import checkpoints

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


@pytest.fixture(autouse=True)
def every_checkpoint(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Write every checkpoint, however long the last one took; and log as the command line does."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


@pytest.mark.parametrize(
    ("words", "cuts"),
    [
        # Within an epoch, right after a checkpoint, while pruning, during cooldown.
        (("pattern=4x1", "lr_scheduler=linear"), (7, 12, 19, 28)),
        (("pattern=2:4", "training.accumulation=2", "training.batch_size=16"), (11,)),
        (("pattern=mixed", "training.precision=bf16"), (13,)),
        (("pattern=1xchannel", "optimizer=sgd", "pruner=snip", "training.log_every=7"), (26,)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_a_killed_run_resumes_with_the_same_bits(
    words: tuple[str, ...],
    cuts: tuple[int, ...],
    ask: Ask,
    kept: Path,
    ends: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense = ask("pattern=dense", "training.epochs=1", f"run.root={kept}")
    runs.execute(dense)
    experiment = ask(*words, f"dense.source={dense.directory / 'model'}")
    runs.execute(experiment)
    folder = experiment.directory
    whole, entries = left(folder), {path.name for path in folder.iterdir()}
    assert "checkpoints" not in entries
    folder.rename("whole")

    for cut in cuts:
        killed(experiment, monkeypatch, at_step(cut))
        assert json.loads((folder / "report.json").read_text())["status"] == "started"
        assert len(list((folder / "checkpoints").iterdir())) == min(2, cut // 4)
    runs.execute(experiment)
    assert f"Resuming from step {cuts[-1] // 4 * 4} of 30 ({folder}/checkpoints/step-" in log_of(folder)
    now = left(folder)
    assert (now[0], now[1]) == (whole[0], whole[1])
    assert same_bits(now[2], whole[2])
    assert same_bits(*ends[-2:])
    assert {path.name for path in folder.iterdir()} == entries


def test_a_run_resumes_with_the_same_number_of_threads_on_another_machine(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = ask("pattern=dense", "runtime.threads=null")
    monkeypatch.setattr(setup, "OWN_THREADS", 2)
    interrupted(experiment, monkeypatch, 13)
    monkeypatch.setattr(setup, "OWN_THREADS", 1)
    assert runs.execute(experiment).threads == 2
    log = log_of(experiment.directory)
    assert "Resuming with 2 threads as before (this machine has 1)" in log
    assert "Resuming from step 12 of 30" in log


def test_a_dense_run_resumes_in_another_process(
    ask: Ask, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = ask("pattern=4x1")
    folders = [dense_run(experiment).directory, experiment.directory]
    runs.execute(experiment)
    whole = [left(folder) for folder in folders]
    Path("outputs").rename("whole")

    killed(experiment, monkeypatch, at_step(6, steps=10))
    command = [sys.executable, "-m", "hydraprune.cli", "train", *small, *WORDS, "pattern=4x1"]
    resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert resumed.stdout.count("Resuming from step 4 of 10 (outputs/toy/tiny/dense/") == 1
    assert resumed.stdout.count("Resuming from") == 1
    for folder, before in zip(folders, whole, strict=True):
        now = left(folder)
        assert now[0] == before[0]
        assert same_bits(now[2], before[2])


def test_the_live_view_shows_the_rate_since_resuming(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate counts steps and time since the run was resumed."""
    experiment = ask("pattern=dense", "training.log_every=1")
    place, latest = experiment.directory / "report.json", checkpoints.Checkpoints.latest

    def slow(self: checkpoints.Checkpoints) -> checkpoints.Start:
        then = time.time() - 3600
        os.utime(place, (then, then))
        return latest(self)

    monkeypatch.setattr(checkpoints.Checkpoints, "latest", slow)
    for cut, from_step in ((9, None), (14, 8)):
        killed(experiment, monkeypatch, at_step(cut))
        assert json.loads(place.read_text())["from_step"] == from_step
        (run,) = look(experiment.directory).running
        assert (run.step, run.taken) == (cut, cut - (from_step or 0))
        assert run.rate == pytest.approx(3600 / run.taken, rel=0.05)
    runs.execute(experiment)
    assert json.loads(place.read_text())["from_step"] is None


def test_unusable_checkpoints_are_skipped(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=dense")
    runs.execute(experiment)
    folder = experiment.directory
    whole = left(folder)
    folder.rename("whole")

    # Killed while it writes its third checkpoint; then the second one is truncated.
    replace = os.replace

    def fatal(source: Any, target: Any) -> None:
        if Path(target).name == "step-000000012.safetensors":
            die()
        replace(source, target)

    killed(experiment, monkeypatch, (os, "replace", fatal))
    checkpoints_of = folder / "checkpoints"
    second = checkpoints_of / "step-000000008.safetensors"
    left_over = {path.name for path in checkpoints_of.iterdir()} - {second.name, "step-000000004.safetensors"}
    assert len(left_over) == 1
    os.truncate(second, 10_000)
    killed(experiment, monkeypatch, at_step(15))
    assert {path.name for path in checkpoints_of.iterdir()} == {second.name, "step-000000012.safetensors"}

    # On a full disk training continues.
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_state", full)
    runs.execute(experiment)
    now = left(folder)
    assert (now[0], now[1]) == (whole[0], whole[1])
    assert same_bits(now[2], whole[2])
    log = log_of(folder)
    assert log.count("step-000000008.safetensors (incomplete file") == 1
    assert [f"Resuming from step {step} of 30" in log for step in (4, 8, 12)] == [True, False, True]
    assert log.count("No checkpoint at step") == 4


def test_a_failed_run_resumes_from_its_checkpoint(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error may have been the disk's, so checkpoints stay."""
    experiment = ask("pattern=dense")
    runs.execute(experiment)
    folder = experiment.directory
    whole = left(folder)
    folder.rename("whole")
    lines = JsonLines.log

    def full(self: JsonLines, values: Any, step: int) -> None:
        if step == 20:
            raise OSError(28, "No space left on device", "metrics.jsonl")
        lines(self, values, step)

    monkeypatch.setattr(JsonLines, "log", full)
    with pytest.raises(UserError, match=r"metrics\.jsonl \(No space left on device\); fix that, and the same command"):
        runs.execute(experiment)
    assert json.loads((folder / "report.json").read_text())["status"] == "failed"
    monkeypatch.setattr(JsonLines, "log", lines)
    runs.execute(experiment)
    assert "Resuming from step 16 of 30" in log_of(folder)
    now = left(folder)
    assert now[:2] == whole[:2]
    assert same_bits(now[2], whole[2])
    assert not (folder / "checkpoints").exists()
