"""`engine=ray` on a real cluster of this machine: order, retries, failures, signals, and a sweep's table."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from job_helpers import commands, done

from hydraprune.errors import UserError
from hydraprune.jobs import Ray
from hydraprune.results.study_record import load_study
from hydraprune.utils import signals

ray = pytest.importorskip("ray", reason="no Ray: pip install 'hydraprune[ray]'")
pytestmark = pytest.mark.xdist_group("ray")
SWEEP = ("pattern=4x1,2:4", "runtime.threads=1")


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    """A cluster with room for two jobs; the engine uses it instead of one of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, handler)
    yield
    ray.shutdown()


def test_jobs_run_once_each_after_what_they_need(tmp_path: Path) -> None:
    scripts = ["sleep 0.4; echo $JOB >> done", "exit 1", *["echo $JOB >> done; echo printed $JOB"] * 3]
    Ray().run(commands(tmp_path, *scripts, needs={2: 0, 3: 1}), tmp_path)
    found = done(tmp_path)
    assert sorted(found) == ["0", "2", "4"]
    assert found.index("0") < found.index("2")
    assert (tmp_path / "logs" / "4.log").read_text() == "printed 4\n"


def test_failed_jobs_are_tried_again_and_killed_ones_take_none_with_them(tmp_path: Path) -> None:
    Ray(retries=1).run(commands(tmp_path, "echo $JOB >> done; kill -9 $$", "sleep 0.5; echo $JOB >> done"), tmp_path)
    assert sorted(done(tmp_path)) == ["0", "0", "1"]


def test_no_job_starts_after_the_first_failure_if_asked(tmp_path: Path) -> None:
    Ray(at_once=1, stop_at_first_failure=True).run(commands(tmp_path, "exit 1", "echo $JOB >> done"), tmp_path)
    assert done(tmp_path) == []


def test_a_signal_stops_running_jobs_and_starts_no_other(tmp_path: Path) -> None:
    told = (
        f'{sys.executable} -c "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('
        "print('told', file=open('done', 'a')) or 75)); open('up', 'a').write('x'); time.sleep(60)\""
    )
    jobs = commands(tmp_path, f"exec {told}", "echo late >> done")

    def stop() -> None:
        while not (tmp_path / "up").is_file():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(signals.Stopped), signals.deferred():
        Ray(at_once=1).run(jobs, tmp_path)
    thread.join()
    assert done(tmp_path) == ["told"]


def test_a_sweep_has_the_table_of_hydras_launcher(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    assert train("-m", *small, *SWEEP).code == 0
    folder = workplace / "multirun_sweeps" / "default"
    expected = (folder / "matrix.csv").read_bytes()
    (workplace / "multirun_sweeps").rename("before")
    (workplace / "outputs").rename("outputs-before")
    finished = train("-m", *small, *SWEEP, "engine=ray", "at_once=2")
    assert finished.code == 0, finished.err
    assert (folder / "matrix.csv").read_bytes() == expected


@pytest.mark.usefixtures("bad_input")
def test_an_address_without_a_cluster_and_impossible_shares_are_refused() -> None:
    with pytest.raises(UserError, match="must be at least 0"):
        Ray(gpus=-1).check()
    with pytest.raises(UserError, match="whole number"):
        Ray(at_once=-1).check()


def test_a_study_asks_for_trials_as_they_end(
    hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = ("study", *small, "optimizer.lr=tag(log,interval(1e-4,1e-2))", "runtime.threads=1", "study.trials=3")
    finished = hydraprune(*words, "engine=ray", "at_once=2")
    assert finished.code == 0, finished.err
    found = load_study(workplace / "multirun_sweeps" / "default")
    assert found is not None
    assert [trial.state for trial in found.trials] == ["complete"] * 3
