"""The benchmarks run and print their tables; their measurements are not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_training_step_benchmark_prints_its_table(root: Path, tmp_path: Path) -> None:
    words = [
        "--models",
        "tiny",
        "--tasks",
        "mrpc",
        "--threads",
        "1",
        "--pairs",
        "1",
        "--steps",
        "2",
        "--examples",
        "100",
    ]
    command = [sys.executable, str(root / "benchmarks" / "training_step.py"), *words, "--json", str(tmp_path / "all")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in ("times as fast", "pruning / step, plain torch", "mask update / step", "peak memory", "written in 15"):
        assert f"{row}" in done.stdout
    (found,) = json.loads((tmp_path / "all").read_text(encoding="utf-8"))
    assert found["about"]["fp32"]["horizon"] == 158
    assert found["pairs"][0]["fp32"]["seconds"] > 0


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
