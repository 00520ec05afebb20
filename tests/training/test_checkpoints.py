"""Checkpoints: which one is used, when one is saved, and training without one; metrics and clock of a resumed run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hydraprune.tracking import JsonLines
from hydraprune.training import checkpoints
from hydraprune.training.checkpoints import Checkpoint, Checkpoints, FreshStart
from hydraprune.training.clock import Clock
from hydraprune.training.progress import Progress
from hydraprune.training.settings import Settings
from hydraprune.utils.tensor_io import write_state


class Steps:
    """The part of a training that decides when a checkpoint is due: 40 steps, 10 per epoch."""

    steps, steps_per_epoch = 40, 10

    def __init__(self, every: Any) -> None:
        self.settings = Settings(epochs=4, batch_size=1, device="cpu", checkpoint_every=every)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """Checkpoints of a training whose state is its progress alone, and whose metrics file has 10 bytes."""
    monkeypatch.setattr(checkpoints, "_state", lambda setup, progress: {"progress": vars(progress)})
    (tmp_path / "metrics.jsonl").write_text("0123456789")
    return Checkpoints(tmp_path / "checkpoints", {"run": "a"}, tmp_path / "metrics.jsonl")


def pass_all(kept: Checkpoints, every: Any, steps: range = range(1, 41)) -> list[int]:
    """The steps at which a checkpoint was saved."""
    written = []
    for step in steps:
        before = set(kept.folder.glob("*"))
        kept.save_if_due(Steps(every), Progress(step), Clock())  # type: ignore[arg-type]
        if set(kept.folder.glob("*")) - before:
            written.append(step)
    return written


def reopened(kept: Checkpoints, run: str = "a") -> Checkpoints:
    return Checkpoints(kept.folder, {"run": run}, kept.metrics)


@pytest.mark.parametrize(
    ("every", "written"),
    [("1ep", [10, 20, 30]), (16, [16, 32]), ("1.5ep", [15, 30]), ("0.01ep", list(range(1, 40))), (None, []), (99, [])],
)
def test_a_checkpoint_is_saved_when_due(
    every: Any, written: list[int], kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)
    assert pass_all(kept, every) == written
    assert len(list(kept.folder.glob("*"))) == min(2, len(written))


def test_saving_takes_a_small_share_of_the_time(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def writing(*_: Any) -> None:
        nonlocal now
        now += 3.0
        raise OSError("slow, and full as well")

    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: now)
    monkeypatch.setattr(checkpoints, "write_state", writing)
    tried = []
    for step in range(1, 40):
        before = now
        kept.save_if_due(Steps(1), Progress(step), Clock())  # type: ignore[arg-type]
        tried += [step] if now > before else []
        now += 10.0
    assert tried == [1, 16, 31]  # 3 seconds are 2 % of 150


def test_the_latest_intact_checkpoint_of_the_run_is_used(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)
    assert kept.latest() == FreshStart()
    pass_all(kept, "1ep")
    latest = reopened(kept).latest()
    assert isinstance(latest, Checkpoint)
    assert (latest.step, latest.metrics_size) == (30, 10)

    write_state({"progress": vars(Progress(35)), "lines": 10}, {"run": "b"}, kept.folder / "step-000000035.safetensors")
    with caplog.at_level(logging.WARNING):
        mine = reopened(kept)
        assert mine.latest().step == 30
    assert [record.message.count("belongs to another run") for record in caplog.records] == [1]
    # Unusable checkpoints are removed with the next save.
    pass_all(mine, "1ep", range(31, 36))
    pass_all(mine, 36, range(36, 37))
    assert sorted(path.name for path in kept.folder.iterdir()) == [
        "step-000000030.safetensors",
        "step-000000036.safetensors",
    ]
    assert reopened(kept, run="b").latest() == FreshStart()


def test_a_checkpoint_with_lost_metrics_is_not_used(kept: Checkpoints) -> None:
    pass_all(kept, "1ep", range(1, 11))
    kept.metrics.write_text("012345678")
    assert reopened(kept).latest() == FreshStart()
    kept.metrics.unlink()
    assert reopened(kept).latest() == FreshStart()


def test_training_continues_if_a_checkpoint_cannot_be_written(
    kept: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    kept.folder.write_text("a file, where the folder should be")
    with caplog.at_level(logging.WARNING):
        kept.save_if_due(Steps(5), Progress(5), Clock())  # type: ignore[arg-type]
    assert [record.message.startswith("No checkpoint at step 5") for record in caplog.records] == [True]


def test_a_metrics_file_continues_where_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sizes = []
    lines = JsonLines(path)
    for step in range(1, 4):
        lines.log({"loss": 0.5}, step)
        sizes.append(path.stat().st_size)
    lines.close()
    text = path.read_text()
    rest = JsonLines(path, kept=sizes[1])
    rest.log({"loss": 0.5}, 3)
    rest.close()
    assert path.read_text() == text
    JsonLines(path).close()
    assert path.read_text() == ""


def test_the_clock_adds_the_time_before_an_interruption() -> None:
    clock = Clock()
    clock.move(1.0, "other", "teacher")
    clock.add({"total": 100.0, "eval": 10.0, "teacher": 20.0, "other": 30.0})
    seconds = clock.seconds()
    assert seconds["total"] == pytest.approx(100.0, abs=0.1)
    assert seconds["teacher"] == 21.0
    assert seconds["eval"] == 10.0
    assert seconds["train"] == pytest.approx(40.0, abs=0.1)


@pytest.mark.parametrize("every", [0, "0ep", -1, "often", True, 1.5])
def test_an_invalid_interval_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match="checkpoint_every="):
        Settings(epochs=1, batch_size=1, device="cpu", checkpoint_every=every)
