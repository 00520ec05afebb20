"""Runs that are killed and started again: they end with the bits of one that was never cut."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hydraprune import run as runs
from hydraprune.training import checkpoints, loop, states

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")

Train = Callable[..., Any]
# 30 steps; updates at 5, 9, ... 25. Drop-out, so that random numbers count.
WORDS = ("training.checkpoint_every=4", "model.dropout=0.1")


@pytest.fixture(autouse=True)
def every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it took to write the one before."""
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file are kept, so that they share their dense models."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every run of this process held after its last step: weights, masks, memory, optimizer, generators."""
    held: list[Any] = []

    def fit(run: Any, *rest: Any) -> Any:
        progress = loop.fit(run, *rest)
        held.append(copy.deepcopy(checkpoints._state(run, progress)))
        return progress

    monkeypatch.setattr(runs, "fit", fit)
    return held


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(train: Train, monkeypatch: pytest.MonkeyPatch, *words: str, patch: tuple[Any, str, Any]) -> None:
    """Start a run in a process of its own that does not live to its end."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(120)
            monkeypatch.setattr(*patch)
            train(*words)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def at_step(step: int, steps: int = 30) -> tuple[Any, str, Any]:
    """Dies when `step` steps of a training of `steps` are behind it, and their checkpoint."""

    def take_step(run: Any, batches: Any, now: int, clock: Any) -> Any:
        if (now, run.steps) == (step, steps):
            die()
        return loop_take_step(run, batches, now, clock)

    loop_take_step = loop.take_step
    return loop, "take_step", take_step


def folder_of(root: Path, pattern: str) -> Path:
    (report,) = root.glob(f"*/*/{pattern}/*/report.json")
    return report.parent


def left(folder: Path) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    """(metrics, report without its times, weights)"""
    report = json.loads((folder / "report.json").read_text())
    assert set(report.pop("seconds")) == {"total", "train", "eval", "teacher"}
    return (folder / "metrics.jsonl").read_text(), report, load_file(folder / "model" / "model.safetensors")


def same_bits(one: Any, other: Any) -> bool:
    sides: list[tuple[Any, dict[str, torch.Tensor]]] = []
    for side in (one, other):
        tensors: dict[str, torch.Tensor] = {}
        sides.append((states._parted(side, "", tensors), tensors))
    (rest, tensors), (other_rest, others) = sides
    return rest == other_rest and all(
        states.bytes_of(tensors[name]) == states.bytes_of(others[name]) for name in others
    )


@pytest.mark.parametrize(
    ("words", "cuts"),
    [
        # Within an epoch, right after a checkpoint, while pruning, in the cooldown.
        (("pattern=4x1", "lr_scheduler=linear"), (7, 12, 19, 28)),
        (("pattern=2:4", "training.accumulation=2", "training.batch_size=16"), (11,)),
        (("pattern=mixed", "training.precision=bf16"), (13,)),
        (("pattern=1xchannel", "optimizer=sgd", "pruner=snip", "training.log_every=7"), (26,)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_a_run_that_was_cut_ends_as_if_it_was_not(
    words: tuple[str, ...],
    cuts: tuple[int, ...],
    train: Train,
    small: tuple[str, ...],
    shared: Path,
    ends: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (*small, *WORDS, *words, f"run.root={shared}")
    pattern = words[-2 - len(words[len(small) + 2 : -2])].removeprefix("pattern=").replace(":", "of")
    finished = train(*words)
    assert finished.code == 0, finished.err
    folder = folder_of(shared, pattern)
    assert not (folder / "checkpoints").exists()
    whole, entries = left(folder), {path.name for path in folder.iterdir()}
    folder.rename(shared / f"whole-{pattern}")

    for cut in cuts:
        killed(train, monkeypatch, *words, patch=at_step(cut))
        assert json.loads((folder / "report.json").read_text())["status"] == "started"
        assert len(list((folder / "checkpoints").iterdir())) == min(2, cut // 4)
    resumed = train(*words)
    assert resumed.code == 0, resumed.err
    assert f"Goes on from step {cuts[-1] // 4 * 4} of 30 ({folder}/checkpoints/step-" in resumed.out
    now = left(folder)
    assert (now[0], now[1]) == (whole[0], whole[1])
    assert same_bits(now[2], whole[2])
    assert same_bits(ends[-1], ends[-2] if len(ends) == 2 else ends[1])
    assert {path.name for path in folder.iterdir()} == entries


def test_a_dense_ancestor_goes_on_in_another_process(
    train: Train, small: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*small, *WORDS, "run.root=cut")
    killed(train, monkeypatch, *words, patch=at_step(6, steps=10))
    command = [sys.executable, "-m", "hydraprune.cli", "train", *words]
    resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert resumed.stdout.count("Goes on from step 4 of 10 (cut/toy/tiny/dense/") == 1
    assert resumed.stdout.count("Goes on from") == 1
    assert train(*words[:-1]).code == 0
    for pattern in ("dense", "4x1"):
        one, other = (left(folder_of(workplace / root, pattern)) for root in ("cut", "outputs"))
        assert one[0] == other[0]
        assert same_bits(one[2], other[2])


def test_what_cannot_be_used_is_passed_over(
    train: Train, small: tuple[str, ...], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*small, *WORDS, "seed=1", f"run.root={shared}", "pattern=dense", "distill=none")
    assert train(*words).code == 0
    folder = next(path.parent for path in shared.glob("*/*/dense/*seed1*/report.json"))
    whole = left(folder)
    folder.rename(shared / "whole-dense")

    # Killed while it writes its third; and then the second turns out to be cut short.
    replace = os.replace

    def fatal(source: Any, target: Any) -> None:
        if Path(target).name == "step-000000012.safetensors":
            die()
        replace(source, target)

    killed(train, monkeypatch, *words, patch=(os, "replace", fatal))
    kept = folder / "checkpoints"
    assert {path.name for path in kept.iterdir() if path.name[0] != "."} == {
        "step-000000004.safetensors",
        "step-000000008.safetensors",
    }
    assert any(path.name[0] == "." for path in kept.iterdir())
    os.truncate(kept / "step-000000008.safetensors", 10_000)
    killed(train, monkeypatch, *words, patch=at_step(15))
    assert {path.name for path in kept.iterdir()} == {"step-000000008.safetensors", "step-000000012.safetensors"}

    # On a full disk training goes on, and what was kept stays.
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_state", full)
    resumed = train(*words)
    assert resumed.code == 0, resumed.err
    assert "Goes on from step 12 of 30" in resumed.out
    assert resumed.out.count("No checkpoint at step") == 4
    now = left(folder)
    assert (now[0], now[1]) == (whole[0], whole[1])
    assert same_bits(now[2], whole[2])
    log = (folder / "train.log").read_text()
    assert log.count("step-000000008.safetensors cannot be used (it is not whole") == 1
    assert log.count("Goes on from step 4 of 30") == 1


def test_a_run_that_failed_begins_anew(train: Train, small: tuple[str, ...], shared: Path) -> None:
    words = (*small, *WORDS, "training.checkpoint_every=1", f"run.root={shared}", "optimizer.lr=1e30", "distill=none")
    for _ in range(2):
        finished = train(*words)
        assert "not finite" in finished.err
        assert "Goes on" not in finished.out
        (folder,) = (path.parent for path in shared.glob("*/*/4x1/*/report.json") if "failed" in path.read_text())
        assert not (folder / "checkpoints").exists()
