"""Several processes on one run's folder: one trains, the others wait or read."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cut_helpers import Ask, log_of

from hydraprune.results.collect import gather, write_matrix
from hydraprune.runs import run as runs
from hydraprune.runs.directory import check_directory
from hydraprune.runs.experiment import Experiment
from hydraprune.sweeps.lookup import look
from hydraprune.utils.files import PROBE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def started(experiment: Experiment) -> int:
    """Start a process that executes a run; returns its id."""
    return forked(lambda: runs.execute(experiment))


def forked(work: Callable[[], object]) -> int:
    """Start a process that calls `work`; returns its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(120)
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def test_two_processes_with_the_same_run_train_it_once(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """Both need the dense model too. The second process waits and finds both runs finished."""
    caplog.set_level(logging.INFO)
    experiment = ask("pattern=4x1")
    children = [started(experiment) for _ in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    log = log_of(experiment.directory)
    assert log.count("step 30 of 30") == 1
    assert log.count("Finished already") == 1
    (dense,) = Path("outputs/toy/tiny/dense").iterdir()
    assert log_of(dense).count("step 10 of 10") == 1
    lines = [json.loads(line)["step"] for line in (experiment.directory / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(lines)


def test_concurrent_directory_checks_leave_no_files(ask: Ask) -> None:
    """Each check creates a probe folder, which the other processes see."""
    experiment = ask("pattern=4x1")
    experiment.directory.mkdir(parents=True)
    children = [forked(lambda: [check_directory(experiment) for _ in range(300)]) for _ in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert list(experiment.directory.iterdir()) == []
    (experiment.directory / f"{PROBE}of-a-killed-process").mkdir()
    check_directory(experiment)


def test_results_can_be_read_while_a_job_writes(ask: Ask) -> None:
    experiment = ask("pattern=4x1", "training.log_every=1", "training.checkpoint_every=1")
    for folder in ("outputs", "tables"):
        Path(folder).mkdir()
    child, looks, seen = started(experiment), 0, set()
    while not list(Path("outputs").rglob("report.json")):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        found = gather([Path("outputs")])
        write_matrix(found, Path("tables"))
        assert json.loads(Path("tables/matrix.json").read_text()) is not None
        seen |= {len(look(Path("outputs")).running), found.markdown() != ""}
        looks += 1
    assert looks > 3
    assert seen >= {1}
    assert "4x1" in gather([Path("outputs")]).markdown()
