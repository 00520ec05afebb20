"""Sweeps on engines of this machine: the table of Hydra's own launcher, killed and refused jobs, keys of engines."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_helpers import reports

from hydraprune.jobs import JobCommand
from hydraprune.results.plan_file import load_plan

SWEEP = ("pattern=4x1,2:4", "seed=0,1", "runtime.threads=1")
FOLDER = Path("multirun_sweeps/default")


def tables() -> list[bytes]:
    """The table of the sweep, as Markdown, CSV and JSON."""
    return [(FOLDER / f"matrix.{kind}").read_bytes() for kind in ("md", "csv", "json")]


@pytest.mark.parametrize("engine", ["here", "joblib"])
def test_the_table_is_that_of_hydras_launcher(
    engine: str, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    first = train("-m", *small, *SWEEP)
    assert first.code == 0, first.err
    expected, words = tables(), {folder: reports(str(FOLDER))[folder]["overrides"] for folder in reports(str(FOLDER))}
    (workplace / "multirun_sweeps").rename("before")
    (workplace / "outputs").rename("outputs-before")
    finished = train("-m", *small, *SWEEP, f"engine={engine}", "at_once=2")
    assert finished.code == 0, finished.err
    assert "2 dense models to train first" in finished.out
    assert tables() == expected
    assert {folder: report["overrides"] for folder, report in reports(str(FOLDER)).items()} == words
    again = train("-m", *small, *SWEEP, f"engine={engine}", "at_once=2")
    assert again.code == 0
    assert "4 jobs: 4 finished" in again.out


def test_a_killed_job_is_tried_again_and_the_others_go_on(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    killed: list[Path] = []

    def kill_one() -> None:
        while not killed:
            for log in FOLDER.absolute().glob("*/*/*/*/train.log"):
                for process in Path("/proc").glob("[0-9]*"):
                    try:
                        held = any(os.readlink(handle) == str(log) for handle in (process / "fd").iterdir())
                    except OSError:
                        continue
                    if held and not killed and int(process.name) != os.getpid():
                        os.kill(int(process.name), signal.SIGKILL)
                        killed.append(log.parent)
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    finished = train("-m", *small, "training.epochs=12", *SWEEP, "engine=here", "at_once=2", "retries=1")
    thread.join(5)
    assert killed
    assert finished.code == 0, finished.err
    assert "ended with exit code -9: started again" in finished.out + finished.err
    assert {report["status"] for report in reports(str(FOLDER)).values()} == {"finished"}


def test_a_job_refused_in_its_process_is_recorded(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = JobCommand.start

    def start(self: JobCommand) -> Any:
        # What the plan does not see: another environment on another machine.
        broken = replace(self, environment={**self.environment, "WORLD_SIZE": "many"})
        return original(broken if any("2of4" in word for word in self.words) else self)

    monkeypatch.setattr(JobCommand, "start", start)
    finished = train("-m", *small, "pattern=4x1,2:4", "engine=here")
    assert finished.code == 1
    assert "WORLD_SIZE=many: must be a number of processes" in finished.err
    plan = load_plan(FOLDER)
    assert plan is not None
    assert [job.failure() for job in plan.jobs].count(None) == 1


def test_jobs_of_a_dense_run_that_fails_do_not_start(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = JobCommand.start

    def start(self: JobCommand) -> Any:
        return original(replace(self, words=("sh", "-c", "echo broken; exit 1")) if not self.log.exists() else self)

    monkeypatch.setattr(JobCommand, "start", start)
    finished = train("-m", *small, "pattern=4x1,2:4", "engine=here")
    assert finished.code == 1
    assert finished.err.count("its dense run failed: it did not start") == 2
    assert len(list((FOLDER / "logs").iterdir())) == 1


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("at_once=2",), "at_once=2: is read by engines; as in engine=here at_once=..."),
        (("retries=1",), "retries=1: is read by engines"),
        (("submit=true",), "submit=true: is read by engines"),
        (("engine=here", "submit=true"), "submit=true: this engine waits for its jobs; engine=slurm can leave"),
        (("engine=here", "at_once=0"), "at_once=0: must be a whole number of at least 1, or null"),
        (("engine=here", "at_once=two"), "at_once=two: must be a whole number or null"),
        (("engine=here", "hydra/launcher=joblib"), "engine: starts the jobs itself; leave hydra/launcher out"),
        (("engine=her",), "engine=her"),
        (("engine=here", "processes=1,2"), "processes: is one for all jobs of a sweep"),
        (("engine=here,joblib",), "engine: is one for all jobs of a sweep"),
        (("engine=here", "processes=0"), "processes=0: must be at least 1"),
        (("engine=slurm", "engine.time=60"), "engine.time=60"),
        (("engine=slurm", "+engine.options.array=3"), "engine.options.array=3: is ours to set"),
        (("engine=slurm", "+engine.options.Foo=3"), "engine.options.Foo=3: is no long option of sbatch"),
        (("engine=slurm", "engine.partition='a\tb'"), "engine.partition"),
    ],
)
def test_keys_that_do_not_fit_are_refused(
    words: tuple[str, ...], error: str, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    finished = train("-m", *small, "pattern=4x1,2:4", *words)
    assert finished.code == 2
    assert error in finished.err
    assert len(finished.err.strip().splitlines()) == 1
    assert not (workplace / "multirun_sweeps").exists()


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("word", ["engine=here", "at_once=2", "engine.at_once=2", "submit=true", "retries=2"])
def test_a_single_run_has_no_engine(
    word: str, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    finished = train(*small, word)
    assert finished.code == 2
    assert len(finished.err.strip().splitlines()) == 1
    assert not (workplace / "outputs").exists()
