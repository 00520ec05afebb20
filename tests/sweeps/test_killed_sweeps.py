"""Sweeps whose processes are killed: the same command completes them, and no finished run is repeated."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from sweep_helpers import JOBLIB, Sweep, assert_whole, kept, reports, training, with_status


def test_a_killed_worker_of_joblib(
    sweep: Callable[..., Sweep], train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = (*small, *JOBLIB, "training.epochs=2,20", "pattern=4x1,2:4", "runtime.threads=1")
    first = sweep(*words)
    (victim, *_) = first.wait_for(
        lambda: len(with_status("finished", "multirun_sweeps")) == 2 and training("multirun_sweeps"),
        "a long job was training",
    )
    done = with_status("finished", "multirun_sweeps", "outputs")
    assert len(done) == 3
    before = kept(done)
    os.kill(process_that_writes(workplace / victim / "train.log"), signal.SIGKILL)

    code, output = first.end()
    assert code == 1
    cut = with_status("started", "multirun_sweeps")
    assert victim in cut
    failures = [line for line in output.splitlines() if line.startswith("hydraprune: failed: ")]
    assert len(failures) == 2
    assert f"hydraprune: failed: {victim}: it was interrupted: its process ended before the run did" in failures
    assert "Traceback" not in output
    table = (workplace / "multirun_sweeps" / "default" / "matrix.md").read_text()
    assert table.count("**0 of 1** (missing 0)") == 2
    assert f"- {victim}: it was interrupted" in table
    assert kept(done) == before

    last = train("-m", *words)
    assert last.code == 0, last.err
    assert "4 jobs: 2 finished" in last.out
    assert kept(done) == before
    assert_whole(4)
    assert "## Failed" not in (workplace / "multirun_sweeps" / "default" / "matrix.md").read_text()


def process_that_writes(file: Path) -> int:
    """The id of the process that has a file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(handle) == str(file) for handle in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no process has {file} open")


def test_a_killed_sweep_beside_another_one(
    sweep: Callable[..., Sweep], train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    """Both sweeps need the same dense model; one trains it and both use it. Then one sweep is killed."""
    words = (*small, "training.epochs=2,20,3", "runtime.threads=1")
    planned = train("-m", *words, "plan=true").out
    (dense,) = (Path(line.split()[-1]) for line in planned.splitlines() if "tiny dense seed 0" in line)
    dense.mkdir(parents=True)
    mine = (*words, "sweep=one")
    with FileLock(dense / ".lock"):
        one, two = sweep(*mine), sweep(*words, "pattern=2:4", "sweep=two")
        for name, which in (("one", one), ("two", two)):
            which.wait_for(lambda name=name: waits(name), "it waited for the dense model")
    home = str(workplace / "multirun_sweeps" / "one")
    one.wait_for(
        lambda: with_status("finished", home) and training(home), "one job was finished and another was training"
    )
    one.kill()
    done = [*with_status("finished", home), *with_status("finished", "outputs")]
    assert len(done) == 2
    assert len(with_status("started", home)) == 1
    before = kept(done)
    code, output = two.end()
    assert code == 0, output

    last = train("-m", *mine)
    assert last.code == 0, last.err
    assert "3 jobs: 1 finished, 1 cut, 1 new" in last.out
    assert kept(done) == before
    assert_whole(6)
    assert list(reports("outputs")) == [dense]
    assert (dense / "train.log").read_text().count("step 10 of 10") == 1
    assert "missing" not in Path(home, "matrix.md").read_text()


def waits(sweep: str) -> bool:
    logs = Path("multirun_sweeps", sweep).rglob("train.log")
    return any("another process is running it" in log.read_text() for log in logs)
