"""Sweeps as processes of their own, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydraprune.utils.files import folders_with

# At most so long is a state waited for; far more than any of them takes.
_PATIENCE = 200.0
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


class Sweep:
    """`python train.py -m ...` in a process group of its own, started in the current folder."""

    def __init__(self, root: Path, *words: str) -> None:
        self.output = Path(f"output-{time.monotonic_ns()}")
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(root / "train.py"), "-m", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, state: Callable[[], Any], what: str) -> Any:
        """Look until there is something to see."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if found := state():
                return found
            assert self.process.poll() is None, f"ended before {what}: {self.output.read_text()}"
            time.sleep(0.01)
        raise AssertionError(f"never {what}: {self.output.read_text()}")

    def end(self) -> tuple[int, str]:
        """Its exit code and all that it said, once it has ended by itself."""
        return self.process.wait(_PATIENCE), self.output.read_text()

    def kill(self) -> None:
        """End it and all its children as a lost machine would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def reports(*below: str) -> dict[Path, dict[str, Any]]:
    """The reports below some folders, by directory."""
    found = (place for folder in below for place in folders_with("report.json", Path(folder)))
    return {place: json.loads((place / "report.json").read_text()) for place in found}


def with_status(status: str, *below: str) -> list[Path]:
    return [directory for directory, report in reports(*below).items() if report["status"] == status]


def training(folder: str) -> list[Path]:
    """Runs that are under way and have written some of their metrics."""
    return [
        directory
        for directory in with_status("started", folder)
        if (directory / "metrics.jsonl").is_file() and (directory / "metrics.jsonl").stat().st_size
    ]


def kept(directories: list[Path]) -> dict[Path, tuple[int, bytes]]:
    """What must not change in finished runs."""
    files = [directory / name for directory in directories for name in ("report.json", "metrics.jsonl")]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def assert_whole(jobs: int) -> None:
    """Every run finished, and trained in one piece: no step is told of twice."""
    found = reports("outputs", "multirun_sweeps")
    assert [report["status"] for report in found.values()] == ["finished"] * len(found)
    assert len(with_status("finished", "multirun_sweeps")) == jobs
    for directory, report in found.items():
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert (directory / "model" / "model.safetensors").is_file()
        losses = [line["step"] for line in lines if "train/loss" in line]
        assert losses == sorted(set(losses))
        assert [line["epoch"] for line in lines if "epoch" in line] == [*range(1, report["steps"] // 10 + 1)]
