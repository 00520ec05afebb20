"""Processes of `engine=here` and of joblib's pools: order, retries, failures, signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_helpers import commands, done

from hydraprune.errors import UserError
from hydraprune.jobs import Engine, Here, JobCommand, Joblib
from hydraprune.jobs.local import run_job
from hydraprune.utils import signals

ENGINES: dict[str, Callable[..., Engine]] = {"here": Here, "joblib": Joblib}


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_jobs_run_once_each_and_print_into_their_logs(engine: str, tmp_path: Path) -> None:
    jobs = commands(tmp_path, *["echo $JOB >> done; echo printed $JOB; echo problem >&2"] * 5)
    ENGINES[engine](at_once=2).run(jobs, tmp_path)
    assert sorted(done(tmp_path)) == list("01234")
    assert jobs[3].log.read_text() == "printed 3\nproblem\n"


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_killed_job_takes_none_with_it(engine: str, tmp_path: Path) -> None:
    jobs = commands(tmp_path, "kill -9 $$", *["sleep 0.3; echo $JOB >> done"] * 3)
    ENGINES[engine](at_once=2).run(jobs, tmp_path)
    assert sorted(done(tmp_path)) == list("123")


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("code", [0, 1, 2, 75, 130, "kill"])
def test_only_failed_jobs_are_tried_again(engine: str, code: int | str, tmp_path: Path) -> None:
    end = "kill -9 $$" if code == "kill" else f"exit {code}"
    ENGINES[engine](at_once=1, retries=2).run(commands(tmp_path, f"echo $JOB >> done; {end}"), tmp_path)
    assert len(done(tmp_path)) == (3 if code in (1, "kill") else 1)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_jobs_wait_for_the_one_they_need_and_do_not_start_if_it_fails(engine: str, tmp_path: Path) -> None:
    scripts = ["sleep 0.4; echo $JOB >> done", "exit 1", *["echo $JOB >> done"] * 3]
    jobs = commands(tmp_path, *scripts, needs={2: 0, 3: 1})
    ENGINES[engine](at_once=4).run(jobs, tmp_path)
    found = done(tmp_path)
    assert sorted(found) == ["0", "2", "4"]
    assert found.index("0") < found.index("2")


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_no_job_starts_after_the_first_failure_if_asked(engine: str, tmp_path: Path) -> None:
    jobs = commands(tmp_path, "echo $JOB >> done", "exit 1", *["echo $JOB >> done"] * 4)
    ENGINES[engine](at_once=1, stop_at_first_failure=True).run(jobs, tmp_path)
    assert done(tmp_path) == ["0"]


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_signal_stops_running_jobs_and_starts_no_other(engine: str, tmp_path: Path) -> None:
    stopping = (
        f'{sys.executable} -c "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('
        "print('told', file=open('done', 'a')) or 75)); open('up', 'a').write('x'); time.sleep(60)\""
    )
    jobs = commands(tmp_path, f"exec {stopping}", f"exec {stopping}", "echo late >> done")

    def stop() -> None:
        while not (tmp_path / "up").is_file() or (tmp_path / "up").stat().st_size < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(signals.Stopped), signals.deferred():
        ENGINES[engine](at_once=2).run(jobs, tmp_path)
    thread.join()
    assert done(tmp_path) == ["told", "told"]


@given(
    codes=st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=6), at_once=st.integers(1, 4), random=st.randoms()
)
@settings(max_examples=15, deadline=None)
def test_every_job_runs_exactly_once_unless_what_it_needs_failed(
    codes: list[int], at_once: int, random: Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("jobs")
    needs = {n: random.randrange(n) for n in range(1, len(codes)) if random.random() < 0.5}
    # One level: a job that is needed needs none.
    needs = {n: need for n, need in needs.items() if need not in needs}
    Here(at_once=at_once).run(
        commands(folder, *[f"echo $JOB >> done; exit {code}" for code in codes], needs=needs), folder
    )
    expected = [n for n in range(len(codes)) if n not in needs or codes[needs[n]] == 0]
    assert sorted(map(int, done(folder))) == expected


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("engine", "key"),
    [
        (Here(at_once=0), "at_once"),
        (Here(at_once=-1), "at_once"),
        (Here(retries=-1), "retries"),
        (Joblib(at_once=0), "at_once"),
    ],
)
def test_impossible_counts_are_refused(engine: Engine, key: str) -> None:
    with pytest.raises(UserError) as refused:
        engine.check()
    assert refused.value.key == key


def test_joblib_counts_from_all_cores() -> None:
    cores = os.cpu_count() or 1
    assert Joblib().workers == cores
    assert Joblib(at_once=-2).workers == max(1, cores - 1)
    assert Joblib(at_once=3).workers == 3


@pytest.mark.parametrize(("scripts", "code"), [("75 75", 75), ("2 2", 2), ("0 0", 0), ("3 0", 3), ("kill 0", 137)])
def test_jobs_of_several_processes_have_the_exit_code_of_the_first_that_failed(
    scripts: str, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        f"mine = {scripts.split()!r}[int(os.environ['RANK'])]\n"
        "os.kill(os.getpid(), signal.SIGKILL) if mine == 'kill' else sys.exit(int(mine))\n"
    )
    command = JobCommand("job", (sys.executable, str(script)), tmp_path, tmp_path / "log", processes=2)
    assert run_job(command, retries=0) == code
