"""Compiled kernels and cached teacher outputs do not change the result of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from saved_run_helpers import weights_of


def left(workplace: Path, root: str) -> tuple[str, dict[str, torch.Tensor]]:
    """(metrics, weights) of the 4x1 run below `root`."""
    (folder,) = (workplace / root).glob("toy/tiny/4x1/*")
    return (folder / "metrics.jsonl").read_text(), weights_of(folder)


def same(one: tuple[str, dict[str, torch.Tensor]], other: tuple[str, dict[str, torch.Tensor]]) -> bool:
    return one[0] == other[0] and all(torch.equal(weight, other[1][name]) for name, weight in one[1].items())


def test_compiled_kernels_do_not_change_the_result(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    """Dense steps, that is: sparse ones are compiled always, and differ by rounding."""
    words = (*small, "training.epochs=2", "model.dropout=0.1", "runtime.sparse_steps=false")
    for root, compiled in (("with", "true"), ("without", "false")):
        finished = train(*words, f"runtime.compiled={compiled}", f"run.root={root}")
        assert finished.code == 0, finished.err
    assert same(left(workplace, "with"), left(workplace, "without"))


def test_runs_share_the_cached_teacher_outputs(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    for root, pattern, cache in (("one", "4x1", "old"), ("one", "2:4", "old"), ("two", "4x1", "new")):
        finished = train(*small, f"pattern={pattern}", f"run.root={root}", f"cache.dir={workplace / cache}")
        assert finished.code == 0, finished.err
    (kept,) = (workplace / "old" / "answers").glob("*.npy")
    # Computed again, the outputs have the same bits and so has the student.
    (again,) = (workplace / "new" / "answers").glob("*.npy")
    assert again.name == kept.name
    assert again.read_bytes() == kept.read_bytes()
    assert same(left(workplace, "one"), left(workplace, "two"))
