"""`hydraprune watch`: what it shows of made-up folders and of a real sweep, in terminals and without."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hydraprune.results.planned import Plan, Planned, write_plan
from hydraprune.results.report import RunReport, write_report

# At most so long is a state waited for; far more than any of them takes.
_PATIENCE = 200.0
WATCH = (sys.executable, "-m", "hydraprune.cli", "watch")


def watch(*words: object, columns: int = 100) -> subprocess.CompletedProcess[str]:
    """`hydraprune watch ...` without a terminal."""
    return subprocess.run(
        [*WATCH, *map(str, words)],
        env={**os.environ, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


class Terminal:
    """`hydraprune watch ...` in a terminal of its own."""

    def __init__(self, *words: object, columns: int = 100, lines: int = 40) -> None:
        inner, outer = pty.openpty()
        fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.set_blocking(inner, False)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*WATCH, *map(str, words)],
            stdin=outer,
            stdout=outer,
            stderr=outer,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(outer)
        self._inner, self.text = inner, ""

    def read(self) -> str:
        """All that it wrote so far, without colours."""
        with contextlib.suppress(OSError):
            while piece := os.read(self._inner, 65536):
                self.text += piece.decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text).replace("\r", "")

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while words not in self.read():
            assert time.monotonic() < deadline, f"never {words!r}: {self.text!r}"
            assert self.process.poll() is None, f"ended before {words!r}: {self.text!r}"
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Exit code and all that it wrote."""
        deadline = time.monotonic() + _PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"never ended: {self.read()!r}"
            self.read()  # or it would wait for room
            time.sleep(0.02)
        return self.process.returncode, self.read()


def planned(folder: Path, count: int) -> list[Planned]:
    """A sweep of jobs that have not begun, its plan written an hour ago."""
    blank = Planned("", "c", "sparse", "tiny", "toy", "4x1", 0.9, 0, "fp32", folder, (), 100)
    jobs = [
        replace(blank, hash=f"h{seed}", seed=seed, directory=folder / f"run{seed}", words=(f"seed={seed}",))
        for seed in range(count)
    ]
    write_plan(Plan((), 1, tuple(jobs), ()), folder)
    begun = time.time() - 3600
    os.utime(folder / "plan.json", (begun, begun))
    return jobs


def keep(job: Planned, status: str, **changes: object) -> None:
    """The job's folder as a run of that status leaves it."""
    names = {"phase": "sparse", "model": "tiny", "task": "toy", "pattern": "4x1", "criterion": None, "scheduler": None}
    report = RunReport(status, job.hash, "c", list(job.words), recipe={}, seed=job.seed, precision="fp32", **names)
    job.directory.mkdir(parents=True, exist_ok=True)
    if status == "finished":
        (job.directory / "model").mkdir(exist_ok=True)
        report = replace(
            report, steps=100, final={"accuracy": 0.75}, dense={"accuracy": 0.5, "run": "x"}, seconds={"total": 200.0}
        )
    write_report(replace(report, **changes), job.directory)  # type: ignore[arg-type]


METRICS = (
    '{"step": 40, "epoch": 2, "eval/accuracy": 0.625}\n{"step": 50, "train/loss": 0.4321, "sparsity/global": 0.512}\n'
)


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


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file and folder, by name: when it was changed, and what it holds."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("columns", [140, 100, 80, 60])
def test_all_that_a_picture_shows_at_every_width(columns: int, swept: Path) -> None:
    before = state(swept)
    found = watch(swept, "--once", columns=columns)
    assert state(swept) == before
    assert (found.returncode, found.stderr) == (1, "")
    words = " ".join(found.stdout.split())
    for said in (
        "1 done 2 running 1 failed 2 waiting",
        "60 min so far, about 10 min left",  # (2 + 2 halves) of 200 s
        "toy tiny 4x1 seed 2",
        "50 of 100",
        "0.4321",
        "0.512",
        "accuracy 0.6250",
        "quiet for 30 min; may be dead",
        "accuracy 0.7500 (+0.2500), 3 min",
        "toy tiny 4x1 seed 1: pruner 4x1, step 9: a score is not finite",
    ):
        assert said in words
    if columns < 100:
        for said in ("step 50 of 100, loss 0.4321, sparsity 0.512, accuracy 0.6250,", "s/step, 2 min left"):
            assert said in words
    assert words.count("quiet for") == 1
    # Only whole reasons may be longer than the terminal is wide.
    cut = [line for line in found.stdout.splitlines() if len(line.rstrip()) > columns]
    assert all(line.startswith("  toy") or str(swept) in line for line in cut)


def test_a_picture_in_a_terminal_is_no_wider_than_it_is(swept: Path) -> None:
    code, text = Terminal(swept, "--once", columns=60).end()
    assert code == 1
    assert "quiet for 30 min" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60
    assert "toy tiny 4x1 seed 1: pruner 4x1, step 9: a score is not f…" in text


def test_it_follows_until_all_is_done(swept: Path) -> None:
    jobs = planned(swept, 3)
    shutil.rmtree(swept / "run1")
    keep(jobs[2], "finished")
    terminal = Terminal(swept, "--period", "0.05")
    terminal.wait_for("2 done  0 running  0 failed  1 waiting")
    keep(jobs[1], "started")
    terminal.wait_for("2 done  1 running  0 failed  0 waiting")
    (jobs[1].directory / "metrics.jsonl").write_text(METRICS)
    terminal.wait_for("50 of 100")
    with (jobs[1].directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 60, "train/loss": 0.4')
    shutil.rmtree(swept / "run0")
    terminal.wait_for("1 done  1 running  0 failed  1 waiting")
    keep(jobs[0], "finished")
    keep(jobs[1], "finished")
    code, text = terminal.end()
    assert code == 0
    assert "Traceback" not in text
    # The last picture stays: nothing is taken back after it.
    assert "3 done  0 running  0 failed  0 waiting" in text.rpartition("multirun_sweeps")[2]
    assert not terminal.text.rpartition("3 done")[2].count("\x1b[2K")
    # In place: the cursor went back up before each new picture, and is shown again.
    assert "\x1b[1A" in terminal.text
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")


def test_a_failure_at_the_end(swept: Path) -> None:
    jobs = planned(swept, 2)
    terminal = Terminal(swept, "--period", "0.05", columns=60)
    terminal.wait_for("1 done  0 running  1 failed")
    code, text = terminal.end()
    assert (code, jobs[1].seed) == (1, 1)
    assert "a score is" in text


def test_ctrl_c_leaves_without_a_traceback(swept: Path) -> None:
    terminal = Terminal(swept, "--period", "0.05")
    terminal.wait_for("2 waiting")
    terminal.process.send_signal(signal.SIGINT)
    code, text = terminal.end()
    assert code == 130
    assert "Traceback" not in text
    assert "error" not in text
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")


def test_more_failures_than_a_terminal_has_lines(swept: Path) -> None:
    jobs = planned(swept, 41)
    for job in jobs[:40]:
        keep(job, "failed", error="not finite")
    terminal = Terminal(swept, "--period", "0.05", lines=20)
    terminal.wait_for("and 34 more")
    keep(jobs[40], "finished")
    code, text = terminal.end()
    assert code == 1
    assert text.count("not finite") >= 40
    assert watch(swept).stdout.count(": not finite") == 40


def test_a_sweep_that_starts_again_is_looked_at_anew(swept: Path) -> None:
    """Failures and cut runs of before are waiting once the plan is written again."""
    os.utime(swept / "plan.json")
    found = watch(swept)
    assert "1 done  0 running  0 failed  5 waiting" in found.stdout
    assert found.returncode == 0


def test_a_sweep_whose_process_died_between_two_jobs(swept: Path) -> None:
    for run in ("run2", "run3"):
        shutil.rmtree(swept / run)
    for run in ("run0", "run1"):
        then = time.time() - 1200
        os.utime(swept / run / "report.json", (then, then))
    assert "nothing runs, and nothing was heard for 20 min" in watch(swept).stdout


def test_the_plan_is_found_below(swept: Path, tmp_path: Path) -> None:
    assert "2 waiting" in watch(tmp_path).stdout
    shutil.copytree(swept, tmp_path / "multirun_sweeps" / "other")
    found = watch(tmp_path)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "2 sweeps" in found.stderr
    assert str(swept) in found.stderr
    assert "2 waiting" in watch(swept).stdout


def test_runs_that_nobody_planned(swept: Path) -> None:
    (swept / "plan.json").unlink()
    found = watch(swept)
    assert "1 done  2 running  1 failed\n" in re.sub(" +\n", "\n", found.stdout)
    assert "waiting" not in found.stdout
    assert "left" not in found.stdout.split("running", 2)[1]
    assert "accuracy 0.6250" in found.stdout
    # A single run of it.
    terminal = Terminal(swept / "run2", "--period", "0.05")
    terminal.wait_for("0 done  1 running  0 failed")
    job = replace(planned(swept / "elsewhere", 3)[2], directory=swept / "run2")
    keep(job, "finished")
    code, text = terminal.end()
    assert code == 0
    assert "1 done  0 running  0 failed" in text


def test_what_there_is_nothing_to_watch_in(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((tmp_path / "nowhere",), "nowhere: no such folder"),
        ((tmp_path / "empty",), "empty: holds no runs and no plan.json"),
        ((tmp_path / "empty", "--period", "0"), "--period 0: must be seconds above 0"),
        ((tmp_path / "empty", "--period", "nan"), "--period nan: must be seconds above 0"),
    ):
        found = watch(*words)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.count("\n") == 1
        assert found.stderr.startswith("hydraprune: error: ")
        assert said in found.stderr


def test_a_job_whose_dense_model_is_trained_first(swept: Path) -> None:
    """It does not write meanwhile, and is not quiet for that."""
    first, second = planned(swept, 2)
    dense = replace(first, hash="dense", phase="dense", pattern="dense", directory=swept / "outputs")
    first = replace(first, ancestor="dense")
    for job in (first, dense):
        shutil.rmtree(job.directory, ignore_errors=True)
        keep(job, "started")
    then = time.time() - 600
    os.utime(first.directory / "report.json", (then, then))
    write_plan(Plan((), 1, (first, second), (dense,)), swept)
    os.utime(swept / "plan.json", (then - 1, then - 1))
    shown = watch(swept).stdout
    assert "its dense model first" in shown
    assert "quiet" not in shown
    keep(dense, "finished")
    assert "quiet for 10 min" in watch(swept).stdout


def test_a_plan_that_cannot_be_read_leaves_the_runs(swept: Path) -> None:
    (swept / "plan.json").write_text('{"schema": 1, "jobs": 5')
    assert "1 done  2 running  1 failed" in watch(swept).stdout


def test_a_real_sweep_from_its_first_job_to_its_last(root: Path, workplace: Path, small: tuple[str, ...]) -> None:
    words = (*small, "pattern=4x1,2:4", "training.log_every=1")
    with Path("output").open("w") as file:
        sweep = subprocess.Popen(
            [sys.executable, str(root / "train.py"), "-m", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not Path("multirun_sweeps/default/plan.json").is_file():
            assert sweep.poll() is None, Path("output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        terminal = Terminal("multirun_sweeps", "--period", "0.05")
        terminal.wait_for("1 done")
        code, text = terminal.end()
        sweep.wait(_PATIENCE)
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
            sweep.wait()
    assert (sweep.returncode, code) == (0, 0), Path("output").read_text()
    last = text.rpartition("multirun_sweeps")[2]
    assert "2 done  0 running  0 failed  0 waiting" in last
    for place in Path("multirun_sweeps").rglob("report.json"):
        report = json.loads(place.read_text())
        change = report["final"]["accuracy"] - report["dense"]["accuracy"]
        assert f"accuracy {report['final']['accuracy']:.4f} ({change:+.4f})" in last
    # It was seen on its way: a step, a loss and a sparsity of a job that ran.
    assert re.search(r"toy tiny (4x1|2:4) seed 0 +\d+ of 30 +\d\.\d{4} +0\.\d{3} ", text)
