"""The benchmarks run and print their tables; their measurements are not tested."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("--models", "tiny", "--tasks", "mrpc", "--threads", "1", "--pairs", "1", "--steps", "2", "--examples", "100")


def run_training_step(root: Path, *words: str) -> str:
    """What the benchmark prints, on a tiny model and task."""
    command = [sys.executable, str(root / "benchmarks" / "training_step.py"), *SMALL, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_training_step_benchmark_prints_its_tables(root: Path, tmp_path: Path) -> None:
    words = (
        "--sides",
        "published",
        "now",
        "--precisions",
        "bf16",
        "--densities",
        "1",
        "0.1",
        "--json",
        str(tmp_path / "all"),
    )
    printed = run_training_step(root, *words)
    for row in (
        "1.0: times as fast",
        "0.1: times as fast",
        "0.1: ms: forward",
        "0.1: ms: a mask update",
        "peak memory",
    ):
        assert f"| {row}" in printed or f"MB: {row}" in printed
    (found,) = json.loads((tmp_path / "all").read_text(encoding="utf-8"))
    assert found["about"]["now bf16"]["horizon"] == 158
    for density in (1.0, 0.1):
        measured = found["densities"][str(density)]
        assert measured["pairs"][0]["now bf16"]["seconds"] > 0
        assert all(kept == pytest.approx(density, abs=0.001) for kept in measured["density"].values())


def test_the_training_step_benchmark_races_the_earlier_build(root: Path) -> None:
    commit = re.search(
        r'^COMMIT = "(\w+)"$', (root / "benchmarks" / "earlier_build.py").read_text("utf-8"), re.MULTILINE
    )
    assert commit
    known = subprocess.run(["git", "-C", str(root), "cat-file", "-e", f"{commit[1]}^{{commit}}"], capture_output=True)
    if known.returncode:
        pytest.skip(f"no git history that holds {commit[1]}, the build to race against")
    words = ("--sides", "before", "now", "--precisions", "fp32", "--densities", "1", "0.2", "--ramp")
    printed = run_training_step(root, *words)
    assert re.search(rf"^before: commit {commit[1]}, .*/before/source/src/hydraprune ", printed, re.MULTILINE)
    for density in (1.0, 0.2):
        assert f"| {density}: times as fast, now / before |" in printed


def test_the_training_step_benchmark_refuses_what_is_no_checkout(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "benchmarks" / "training_step.py"), *SMALL, "--before", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"--before {tmp_path}: is no checkout (it has no src/hydraprune)\n"


def test_whole_recipes_are_raced(root: Path) -> None:
    printed = run_training_step(root, "--recipe", "--sides", "published", "--examples", "32")
    assert "15 epochs of 32 examples" in printed
    assert "| final f1 |" in printed


def test_accuracy_of_no_runs_is_an_empty_table(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "benchmarks" / "accuracy.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("| batches, precision |")


def test_the_teacher_groups_benchmark_prints_its_table(root: Path) -> None:
    words = ["--models", "tiny", "--tasks", "sst2", "--examples", "40", "--pairs", "1"]
    command = [sys.executable, str(root / "benchmarks" / "teacher_groups.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[2:]] == [
        "| tiny, sst2, fp32",
        "| tiny, sst2, bf16",
    ]
