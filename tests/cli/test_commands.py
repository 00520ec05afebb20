"""Mistyped commands and options of `hydraprune`: one line with a cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CASES: dict[str, tuple[str, ...]] = {
    # typed -> parts of the answer
    "trian model=tiny": ("invalid choice: 'trian'", "did you mean hydraprune train?"),
    "reports x": ("did you mean hydraprune report?",),
    "pattern=4x1": ("did you mean hydraprune train pattern=4x1?",),
    "report": ("report: the following arguments are required: DIR", "see hydraprune report --help"),
    "verify": ("verify: the following arguments are required: model",),
    "report x --outt y": ("unrecognized arguments",),
    "watch x --period often": ("--period", "often"),
    "doctor --pattern 4x1": ("doctor: unrecognized arguments: --pattern", "without dashes"),
    "doctor lr=3": ("did you mean optimizer.lr=3?",),
    "eval x task=SST-2": ("did you mean task=sst2?",),
    "eval x task=toy batch_size=3": ("did you mean training.batch_size=3?",),
    "eval x": ("a task is needed",),
    "cache cache.dirr=x": ("did you mean cache.dir?",),
    "convert": ("convert: the following arguments are required: FILE",),
    "convert nowhere.yaml": ("nowhere.yaml: cannot be read",),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("typed", CASES)
def test_a_mistyped_command_is_answered_in_one_line(typed: str, hydraprune: Callable[..., Any]) -> None:
    finished = hydraprune(*typed.split(" "))
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    assert finished.err.startswith("hydraprune: error: ")
    for part in CASES[typed]:
        assert part in finished.err
