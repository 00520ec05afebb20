"""Runs that are killed in a forked process, and the files that they leave."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_run_helpers import report_of, weights_of

from hydraprune.runs import run as runs
from hydraprune.runs.experiment import Experiment
from hydraprune.training import loop
from hydraprune.utils import tensor_io

Ask = Callable[..., Experiment]
# 30 steps; updates at 5, 9, ... 25. Dropout, so that random numbers count.
WORDS = ("training.checkpoint_every=4", "model.dropout=0.1")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, patch: tuple[Any, str, Any]) -> None:
    """Start a run in a forked process that kills itself before the end."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(120)
            monkeypatch.setattr(*patch)
            runs.execute(experiment)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def interrupted(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Start a run in this process that Ctrl-C ends before `step` is done, without a checkpoint of it.

    For runs of several threads: a forked process cannot use those of OpenMP that its parent has used.
    """
    take_step = loop.take_step

    def interrupt(run: Any, batches: Any, now: int, clock: Any) -> Any:
        if now == step:
            raise KeyboardInterrupt
        return take_step(run, batches, now, clock)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runs.execute(experiment)


def at_step(step: int, steps: int = 30) -> tuple[Any, str, Any]:
    """A patch that kills the process after `step` of `steps` optimizer steps, and their checkpoint."""

    def take_step(run: Any, batches: Any, now: int, clock: Any) -> Any:
        if (now, run.steps) == (step, steps):
            die()
        return loop_take_step(run, batches, now, clock)

    loop_take_step = loop.take_step
    return loop, "take_step", take_step


def log_of(folder: Path) -> str:
    return (folder / "train.log").read_text()


def left(folder: Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    """(metrics, report without its times, weights)"""
    report = report_of(folder)
    assert set(report.pop("seconds")) == {"total", "train", "eval", "teacher"}
    report.pop("sparse_gain")  # is measured
    return (folder / "metrics.jsonl").read_text(), report, weights_of(folder)


def same_bits(one: Any, other: Any) -> bool:
    (rest, tensors), (other_rest, others) = tensor_io.split_tensors(one), tensor_io.split_tensors(other)
    return rest == other_rest and all(
        tensor_io.bytes_of(tensors[name]) == tensor_io.bytes_of(others[name]) for name in others
    )
