"""`hydraprune watch` on made-up folders in various states."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from spec_helpers import changed
from watch_helpers import Terminal, keep, planned, state

from hydraprune.results.plan_file import Plan, write_plan


@pytest.mark.parametrize("columns", [140, 100, 80, 60])
def test_the_view_at_various_widths(watch: Callable[..., Any], columns: int, swept: Path) -> None:
    before = state(swept)
    found = watch(swept, "--once", columns=columns)
    assert state(swept) == before
    assert (found.code, found.err) == (1, "")
    words = " ".join(found.out.split())
    for text in (
        "1 done 2 running 1 failed 2 waiting",
        "60 min so far, about 10 min left",  # (2 + 2 halves) of 200 s
        "toy tiny 4x1 seed 2",
        "50 of 100",
        "0.4321",
        "0.512",
        "accuracy 0.6250",
        "no output for 30 min; may be dead",
        "accuracy 0.7500 (+0.2500), 3 min",
        "toy tiny 4x1 seed 1: pruner 4x1, step 9: a score is not finite",
    ):
        assert text in words
    if columns < 100:
        for text in ("step 50 of 100, loss 0.4321, sparsity 0.512, accuracy 0.6250,", "s/step, 2 min left"):
            assert text in words
    assert words.count("no output for") == 1
    # Only reasons of failures may be wider than the terminal.
    too_wide = [line for line in found.out.splitlines() if len(line.rstrip()) > columns]
    assert all(line.startswith("  toy") or str(swept) in line for line in too_wide)


def test_a_sweep_that_starts_again(watch: Callable[..., Any], swept: Path) -> None:
    """Failed and interrupted runs are waiting once the plan is written again."""
    os.utime(swept / "plan.json")
    found = watch(swept)
    assert "1 done  0 running  0 failed  5 waiting" in found.out
    assert found.code == 0


def test_a_sweep_whose_process_died_between_two_jobs(watch: Callable[..., Any], swept: Path) -> None:
    for run in ("run2", "run3"):
        shutil.rmtree(swept / run)
    for run in ("run0", "run1"):
        then = time.time() - 1200
        os.utime(swept / run / "report.json", (then, then))
    assert "nothing has run for 20 min" in watch(swept).out


def test_the_plan_is_found_in_a_subfolder(watch: Callable[..., Any], swept: Path, tmp_path: Path) -> None:
    assert "2 waiting" in watch(tmp_path).out
    shutil.copytree(swept, tmp_path / "multirun_sweeps" / "other")
    found = watch(tmp_path)
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "2 sweeps" in found.err
    assert str(swept) in found.err
    assert "2 waiting" in watch(swept).out


def test_runs_without_a_plan(watch: Callable[..., Any], swept: Path) -> None:
    (swept / "plan.json").unlink()
    found = watch(swept)
    assert "1 done  2 running  1 failed\n" in re.sub(" +\n", "\n", found.out)
    assert "waiting" not in found.out
    assert "left" not in found.out.split("running", 2)[1]
    assert "accuracy 0.6250" in found.out
    # A single run of it.
    terminal = Terminal(swept / "run2", "--period", "0.05")
    terminal.wait_for("0 done  1 running  0 failed")
    job = replace(planned(swept / "elsewhere", 3)[2], directory=swept / "run2")
    keep(job, "finished")
    code, text = terminal.end()
    assert code == 0
    assert "1 done  0 running  0 failed" in text


def test_folders_with_nothing_to_watch_are_refused(watch: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, text in (
        ((tmp_path / "nowhere",), "nowhere: no such folder"),
        ((tmp_path / "empty",), "empty: contains no runs and no plan.json"),
        ((tmp_path / "empty", "--period", "0"), "--period 0: must be seconds above 0"),
        ((tmp_path / "empty", "--period", "nan"), "--period nan: must be seconds above 0"),
    ):
        found = watch(*words)
        assert (found.code, found.out) == (2, "")
        assert found.err.count("\n") == 1
        assert found.err.startswith("hydraprune: error: ")
        assert text in found.err


def test_a_job_whose_dense_model_is_trained_first(watch: Callable[..., Any], swept: Path) -> None:
    """It does not write in the meantime, without being reported as dead."""
    first, second = planned(swept, 2)
    dense = changed(first, hash="dense", phase="dense", pattern="dense", directory=swept / "outputs")
    first = replace(first, ancestor="dense")
    for job in (first, dense):
        shutil.rmtree(job.directory, ignore_errors=True)
        keep(job, "started")
    then = time.time() - 600
    os.utime(first.directory / "report.json", (then, then))
    write_plan(Plan((), 1, (first, second), (dense,)), swept)
    os.utime(swept / "plan.json", (then - 1, then - 1))
    shown = watch(swept).out
    assert "training its dense model first" in shown
    assert "no output" not in shown
    keep(dense, "finished")
    assert "no output for 10 min" in watch(swept).out


def test_with_an_unreadable_plan_the_runs_are_shown(watch: Callable[..., Any], swept: Path) -> None:
    (swept / "plan.json").write_text('{"schema": 1, "jobs": 5')
    assert "1 done  2 running  1 failed" in watch(swept).out
