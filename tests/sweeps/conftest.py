"""A made-up sweep, and `hydraprune watch` without a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watch_helpers import METRICS, keep, planned


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """Job 0 is finished, 1 failed, 2 is running, 3 has not written for half an hour, 4 and 5 have not started."""
    folder = tmp_path / "multirun_sweeps" / "default"
    jobs = planned(folder, 6)
    keep(jobs[0], "finished")
    keep(jobs[1], "failed", error="pruner 4x1, step 9:\na score is not finite")
    for job, ago in ((jobs[2], 0), (jobs[3], 1800)):
        keep(job, "started")
        (job.directory / "metrics.jsonl").write_text(METRICS)
        then = time.time() - ago
        os.utime(job.directory / "metrics.jsonl", (then, then))
        os.utime(job.directory / "report.json", (then - 100, then - 100))
    return folder


@pytest.fixture
def watch(hydraprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`hydraprune watch ...` in this process, which has no terminal."""

    def call(*words: object, columns: int = 100) -> Any:
        monkeypatch.setenv("COLUMNS", str(columns))
        return hydraprune("watch", *map(str, words))

    return call
