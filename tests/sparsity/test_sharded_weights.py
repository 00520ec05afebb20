"""Weights that `fully_shard` shards: the masks of one process bit for bit, and checkpoints for any number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "helpers" / "sharded_training.py"


def run(what: str, count: int, folder: Path) -> list[str]:
    """What the processes print, all of which end well."""
    words = [sys.executable, str(SCRIPT)]
    started = [
        subprocess.Popen(
            [*words, str(rank), str(count), str(folder), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    assert not any(process.returncode for process in started), "\n".join(err[-2000:] for _, err in ended)
    return [out for out, _ in ended]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_masks_are_those_of_one_process(count: int, tmp_path: Path) -> None:
    assert run("all", count, tmp_path) == ["128 cases agree\n"] * count


def test_a_checkpoint_is_read_by_any_number_of_processes(tmp_path: Path) -> None:
    assert run("save", 2, tmp_path) == ["25 cases agree\n"] * 2
    for count in (1, 2, 3):
        assert run("load", count, tmp_path) == ["25 cases agree\n"] * count
