"""Sweeps stopped by a signal: running jobs write a checkpoint, no job starts, and the same command resumes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_helpers import JOBLIB, Sweep, assert_whole, training, with_status

from hydraprune.training import loop
from hydraprune.utils import signals

SENDS_SIGNALS = True
SWEEPS = "multirun_sweeps"


def test_a_signal_stops_a_sweep_without_workers(
    train: Callable[..., Any], small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*small, "training.checkpoint_every=null", "pattern=4x1,2:4", "runtime.threads=1")
    step = loop.take_step

    def asked(run: Any, batches: Any, now: int, clock: Any) -> Any:
        if (now, run.steps) == (6, 30):
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(run, batches, now, clock)

    monkeypatch.setattr(loop, "take_step", asked)
    before = signal.getsignal(signal.SIGUSR1)
    first = train("-m", *words)
    monkeypatch.setattr(loop, "take_step", step)
    signal.signal(signal.SIGUSR1, before)
    assert first.code == 75, first.err
    assert "hydraprune: stopped by SIGUSR1; the same command resumes from here" in first.err
    assert "Traceback" not in first.err
    (cut,) = with_status("started", SWEEPS)
    assert with_status("finished", SWEEPS) == []
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["step-000000007.safetensors"]

    last = train("-m", *words)
    assert last.code == 0, last.err
    assert "2 jobs: 1 cut, 1 new" in last.out
    assert "Resuming from step" in (cut / "train.log").read_text()
    assert_whole(2)


def test_a_signal_is_forwarded_to_workers(
    sweep: Callable[..., Sweep], train: Callable[..., Any], small: tuple[str, ...]
) -> None:
    """The signal is sent to the sweep's process while two jobs run and one waits."""
    words = (*small, "training.epochs=15", "training.checkpoint_every=null", "runtime.threads=1", "pattern=4x1,2:4,1x1")
    first = sweep(*words, *JOBLIB)
    running = first.wait_for(lambda: len(training(SWEEPS)) == 2 and training(SWEEPS), "two jobs were training")
    os.kill(first.process.pid, signal.SIGTERM)
    code, output = first.end()
    assert code == 75, output
    assert "Traceback" not in output
    assert "gave up" not in output
    assert with_status("started", SWEEPS) == running
    assert with_status("finished", SWEEPS) == []
    for cut in running:
        assert len(list((cut / "checkpoints").iterdir())) == 1

    last = train("-m", *words)
    assert last.code == 0, last.err
    assert "3 jobs: 2 cut, 1 new" in last.out
    assert all("Resuming from step" in (Path(cut) / "train.log").read_text() for cut in running)
    assert_whole(3)


def test_signals_are_not_forwarded_with_a_single_worker(
    train: Callable[..., Any], small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job runs in this process, where a signal before the first step stops it at once."""

    def passed_on() -> Any:
        raise AssertionError("signals are deferred")

    monkeypatch.setattr(signals, "forwarded", passed_on)
    words = (*small, "seed=0,1", JOBLIB[0], "hydra.launcher.n_jobs=1")
    done = train("-m", *words)
    assert done.code == 0, done.err
    assert len(with_status("finished", SWEEPS)) == 2
