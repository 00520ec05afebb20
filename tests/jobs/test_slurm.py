"""`engine=slurm` on a real cluster of one node: arrays, order, requeues, failures, the queue, and a sweep's table."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from job_helpers import commands, done
from slurm_cluster import cluster, missing

from hydraprune.errors import UserError
from hydraprune.jobs import JobCommand, Slurm
from hydraprune.jobs.slurm_queue import largest_array, queued
from hydraprune.results.study_record import load_study
from hydraprune.search.pruner import EpochPruner

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=f"no SLURM: {missing()}"),
    pytest.mark.xdist_group("slurm"),
]
SWEEP = ("pattern=4x1,2:4", "seed=0,1", "runtime.threads=1")


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster whose arrays have at most two tasks."""
    with cluster(tmp_path_factory.mktemp("cluster"), cpus=4, largest=3):
        ended = threading.Event()
        hurry = threading.Thread(target=start_requeued, args=[ended])
        hurry.start()
        yield
        ended.set()
        hurry.join()


def start_requeued(ended: threading.Event) -> None:
    """Start requeued tasks at once, which SLURM lets wait for two minutes."""
    while not ended.wait(0.5):
        words = ["squeue", "--noheader", "--array", "--format=%i %r"]
        for line in subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines():
            task, _, reason = line.partition(" ")
            if reason == "BeginTime":
                subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=False)


def run(jobs: list[JobCommand], folder: Path, **options: Any) -> None:
    engine = Slurm(poll=0.3, **options)
    engine.check()
    engine.run(jobs, folder)


def wait_until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 100
    while not reached():
        assert time.monotonic() < until, subprocess.run(["squeue"], capture_output=True, text=True, check=False).stdout
        time.sleep(0.2)


def test_jobs_are_split_into_arrays_of_the_sites_size_and_run_once_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert largest_array() == 2
    quoted = "echo $JOB 'a \"quoted\" word' >> done; echo printed; echo problem >&2"
    run(commands(tmp_path, *[quoted] * 5), tmp_path)
    assert sorted(done(tmp_path)) == sorted([*"01234", *["a", '"quoted"', "word"] * 5])
    assert (tmp_path / "logs" / "3.log").read_text() == "printed\nproblem\n"
    out = capsys.readouterr().out
    assert "5 jobs are submitted to SLURM" in out
    assert f"hydraprune watch {tmp_path}" in out
    (place,) = (tmp_path / "slurm").iterdir()
    assert len(list(place.glob("batch-*.sh"))) == 3


def test_dense_runs_come_first_and_only_so_many_run_at_once(tmp_path: Path) -> None:
    script = "echo $JOB >> done; echo x >> up; wc -l < up >> most; sleep 0.5; sed -i 1d up"
    run(commands(tmp_path, *[script] * 4, needs={0: 3, 1: 3}), tmp_path, at_once=1)
    order = done(tmp_path)
    assert sorted(order) == list("0123")
    assert order[0] == "3"
    assert {line.strip() for line in (tmp_path / "most").read_text().splitlines()} == {"1"}


def test_a_job_that_stopped_with_a_checkpoint_is_requeued_and_a_failed_one_tried_again(tmp_path: Path) -> None:
    stopped = "echo $JOB >> done; [ $(grep -c 0 done) -gt 1 ] || exit 75"
    failing = "echo $JOB >> done; kill -9 $$"
    run(commands(tmp_path, stopped, failing, "echo $JOB >> done; exit 2"), tmp_path, retries=1)
    assert sorted(done(tmp_path)) == ["0", "0", "1", "1", "2"]


def test_a_signal_of_slurm_reaches_the_job(tmp_path: Path) -> None:
    waits = "trap 'echo told >> done; exit 75' USR1; [ -f done ] && exit 0; touch up; while true; do sleep 0.1; done"
    run(commands(tmp_path, waits), tmp_path, submit=True)
    wait_until((tmp_path / "up").is_file)
    (array,) = set(queued(tmp_path / "slurm").values())
    subprocess.run(["scancel", "--signal=USR1", f"{array}_1"], check=True)
    wait_until(lambda: not queued(tmp_path / "slurm"))
    assert done(tmp_path) == ["told"]


def test_waiting_tasks_are_cancelled_after_the_first_failure_if_asked(tmp_path: Path) -> None:
    jobs = commands(tmp_path, "exit 1", "echo $JOB >> done")
    run(jobs, tmp_path, at_once=1, stop_at_first_failure=True)
    assert done(tmp_path) == []


def test_jobs_in_the_queue_are_not_submitted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "while [ ! -f go ]; do sleep 0.1; done; echo $JOB >> done"
    jobs = commands(tmp_path, *[script] * 3, needs={2: 0})
    run(jobs[:1], tmp_path, submit=True)
    run(jobs, tmp_path, submit=True)
    out = capsys.readouterr().out
    assert "2 jobs are submitted" in out
    assert "1 jobs are in its queue from before" in out
    assert len(queued(tmp_path / "slurm")) == 3
    (tmp_path / "go").touch()
    wait_until(lambda: not queued(tmp_path / "slurm"))
    assert sorted(done(tmp_path)) == list("012")
    record = next((tmp_path / "slurm").glob("*/submission.json"))
    record.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        queued(tmp_path / "slurm")


@pytest.mark.usefixtures("bad_input")
def test_what_sbatch_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sbatch: .*partition"):
        run(commands(tmp_path, "true"), tmp_path, partition="nowhere")


@pytest.mark.usefixtures("bad_input")
def test_a_secret_is_not_written_into_scripts(tmp_path: Path) -> None:
    job = JobCommand(
        "job", ("train", "tracker.api_key=0123456789abcdef0123456789abcdef01234567"), tmp_path, tmp_path / "l"
    )
    with pytest.raises(UserError, match="a secret on the command line"):
        run([job], tmp_path)
    assert not (tmp_path / "slurm").exists()


def test_a_sweep_has_the_table_of_hydras_launcher_and_can_be_left(
    train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    first = train("-m", *small, *SWEEP)
    assert first.code == 0, first.err
    folder = workplace / "multirun_sweeps" / "default"
    expected = (folder / "matrix.csv").read_bytes()
    (workplace / "multirun_sweeps").rename("before")
    (workplace / "outputs").rename("outputs-before")
    submitted = train("-m", *small, *SWEEP, "engine=slurm", "at_once=2", "submit=true")
    assert submitted.code == 0, submitted.err
    assert "6 jobs are submitted to SLURM" in submitted.out
    watched = hydraprune("watch", "--once", str(folder))
    assert watched.code == 0
    assert "4 waiting" in watched.out or "running" in watched.out
    wait_until(lambda: not queued(folder / "slurm"))
    assert hydraprune("report", str(folder), "--out", str(folder)).code == 0
    assert (folder / "matrix.csv").read_bytes() == expected
    again = train("-m", *small, *SWEEP, "engine=slurm", "engine.poll=0.5")
    assert "4 jobs: 4 finished" in again.out


def test_a_trial_that_a_study_stops_is_not_requeued(
    hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpochPruner, "prune", lambda _, study, trial: trial.number == 1)
    words = ("study", *small, "training.epochs=60", "scheduler.cooldown=50ep", "study.trials=2", "runtime.threads=1")
    search = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
    finished = hydraprune(*words, search, "engine=slurm", "at_once=2", "engine.poll=0.5")
    assert finished.code == 0, finished.err
    found = load_study(workplace / "multirun_sweeps" / "default")
    assert found is not None
    assert [trial.state for trial in found.trials] == ["complete", "stopped"]
    listed = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout
    assert listed == ""
