"""Which checkpoint is taken, when one is written, and what a run needs none of."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hydraprune.tracking import JsonLines
from hydraprune.training import checkpoints
from hydraprune.training.checkpoints import Beginning, Checkpoint, Checkpoints
from hydraprune.training.settings import Settings
from hydraprune.training.state import Progress
from hydraprune.training.step import Clock
from hydraprune.utils.tensor_io import write_state


class Steps:
    """As much of a run as decides when a checkpoint is due: 40 steps, 10 an epoch."""

    steps, steps_per_epoch = 40, 10

    def __init__(self, every: Any) -> None:
        self.settings = Settings(epochs=4, batch_size=1, device="cpu", checkpoint_every=every)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """Of a run whose state is nothing, and whose metrics have 10 bytes."""
    monkeypatch.setattr(checkpoints, "_state", lambda run, progress: {"progress": vars(progress)})
    (tmp_path / "metrics.jsonl").write_text("0123456789")
    return Checkpoints(tmp_path / "checkpoints", {"run": "a"}, tmp_path / "metrics.jsonl")


def pass_all(kept: Checkpoints, every: Any, steps: range = range(1, 41)) -> list[int]:
    """The steps at which something was written."""
    written = []
    for step in steps:
        before = set(kept.folder.glob("*"))
        kept.passed(Steps(every), Progress(step), Clock())  # type: ignore[arg-type]
        if set(kept.folder.glob("*")) - before:
            written.append(step)
    return written


def again(kept: Checkpoints, run: str = "a") -> Checkpoints:
    return Checkpoints(kept.folder, {"run": run}, kept.lines)


@pytest.mark.parametrize(
    ("every", "written"),
    [("1ep", [10, 20, 30]), (16, [16, 32]), ("1.5ep", [15, 30]), ("0.01ep", list(range(1, 40))), (None, []), (99, [])],
)
def test_when(every: Any, written: list[int], kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)
    assert pass_all(kept, every) == written
    assert len(list(kept.folder.glob("*"))) == min(2, len(written))


def test_writing_takes_a_small_share_of_the_time(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
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
        kept.passed(Steps(1), Progress(step), Clock())  # type: ignore[arg-type]
        tried += [step] if now > before else []
        now += 10.0
    assert tried == [1, 16, 31]  # 3 seconds are 2 % of 150


def test_the_newest_that_is_whole_and_ones_own(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)
    assert kept.newest() == Beginning()
    pass_all(kept, "1ep")
    newest = again(kept).newest()
    assert isinstance(newest, Checkpoint)
    assert (newest.step, newest.lines) == (30, 10)

    write_state({"progress": vars(Progress(35)), "lines": 10}, {"run": "b"}, kept.folder / "step-000000035.safetensors")
    with caplog.at_level(logging.WARNING):
        mine = again(kept)
        assert mine.newest().step == 30
    assert [record.message.count("is of another run") for record in caplog.records] == [1]
    # What could not be used makes room for what can.
    pass_all(mine, "1ep", range(31, 36))
    pass_all(mine, 36, range(36, 37))
    assert sorted(path.name for path in kept.folder.iterdir()) == [
        "step-000000030.safetensors",
        "step-000000036.safetensors",
    ]
    assert again(kept, run="b").newest() == Beginning()


def test_metrics_that_are_lost_are_not_skipped(kept: Checkpoints) -> None:
    pass_all(kept, "1ep", range(1, 11))
    kept.lines.write_text("012345678")
    assert again(kept).newest() == Beginning()
    kept.lines.unlink()
    assert again(kept).newest() == Beginning()


def test_without_a_place_training_goes_on(kept: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    kept.folder.write_text("a file, where the folder should be")
    with caplog.at_level(logging.WARNING):
        kept.passed(Steps(5), Progress(5), Clock())  # type: ignore[arg-type]
    assert [record.message.startswith("No checkpoint at step 5") for record in caplog.records] == [True]


def test_lines_go_on_where_they_are_cut(tmp_path: Path) -> None:
    place = tmp_path / "metrics.jsonl"
    sizes = []
    lines = JsonLines(place)
    for step in range(1, 4):
        lines.log({"loss": 0.5}, step)
        sizes.append(place.stat().st_size)
    lines.close()
    text = place.read_text()
    rest = JsonLines(place, kept=sizes[1])
    rest.log({"loss": 0.5}, 3)
    rest.close()
    assert place.read_text() == text
    JsonLines(place).close()
    assert place.read_text() == ""


def test_the_pieces_of_a_run_add_up() -> None:
    clock = Clock()
    clock.move(1.0, "other", "teacher")
    clock.add({"total": 100.0, "eval": 10.0, "teacher": 20.0, "other": 30.0})
    seconds = clock.seconds()
    assert seconds["total"] == pytest.approx(100.0, abs=0.1)
    assert seconds["teacher"] == 21.0
    assert seconds["eval"] == 10.0
    assert seconds["train"] == pytest.approx(40.0, abs=0.1)


@pytest.mark.parametrize("every", [0, "0ep", -1, "often", True, 1.5])
def test_durations_that_cannot_be(every: Any) -> None:
    with pytest.raises(ValueError, match="checkpoint_every="):
        Settings(epochs=1, batch_size=1, device="cpu", checkpoint_every=every)
