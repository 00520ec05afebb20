"""Sweeps that are asked to stop: every job keeps a checkpoint, none begins, and the same command finishes the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep_helpers import JOBLIB, Sweep, assert_whole, training, with_status

SWEEPS = "multirun_sweeps"


def test_one_job_after_the_other(
    sweep: Callable[..., Sweep], train: Callable[..., Any], small: tuple[str, ...]
) -> None:
    words = (*small, "training.epochs=15,2", "training.checkpoint_every=null", "pattern=4x1", "runtime.threads=1")
    first = sweep(*words)
    (cut,) = first.wait_for(lambda: training(SWEEPS), "a job was under way")
    os.kill(first.process.pid, signal.SIGUSR1)
    code, said = first.end()
    assert code == 75, said
    assert "hydraprune: stopped by SIGUSR1; the same command goes on from here" in said
    assert "Traceback" not in said
    assert with_status("started", SWEEPS) == [cut]
    assert with_status("finished", SWEEPS) == []
    assert len(list((cut / "checkpoints").iterdir())) == 1

    last = train("-m", *words)
    assert last.code == 0, last.err
    assert "2 jobs: 1 cut, 1 new" in last.out
    assert "Goes on from step" in (cut / "train.log").read_text()
    assert_whole(2)


def test_workers_are_told(sweep: Callable[..., Sweep], train: Callable[..., Any], small: tuple[str, ...]) -> None:
    """By the process that a person or a scheduler knows; one job waits behind two."""
    words = (*small, "training.epochs=15", "training.checkpoint_every=null", "runtime.threads=1", "pattern=4x1,2:4,1x1")
    first = sweep(*words, *JOBLIB)
    under_way = first.wait_for(lambda: len(training(SWEEPS)) == 2 and training(SWEEPS), "two jobs were under way")
    os.kill(first.process.pid, signal.SIGTERM)
    code, said = first.end()
    assert code == 75, said
    assert "Traceback" not in said
    assert "gave up" not in said
    assert with_status("started", SWEEPS) == under_way
    assert with_status("finished", SWEEPS) == []
    for cut in under_way:
        assert len(list((cut / "checkpoints").iterdir())) == 1

    last = train("-m", *words)
    assert last.code == 0, last.err
    assert "3 jobs: 2 cut, 1 new" in last.out
    assert all("Goes on from step" in (Path(cut) / "train.log").read_text() for cut in under_way)
    assert_whole(3)
