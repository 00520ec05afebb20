"""What several files of tests look at."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from watch_helpers import METRICS, keep, planned


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """0 finished, 1 failed, 2 runs, 3 has been quiet for half an hour, 4 and 5 have not begun."""
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
