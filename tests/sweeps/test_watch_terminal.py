"""`hydraprune watch` in a terminal while a sweep runs: made-up sweeps and a real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watch_helpers import METRICS, PATIENCE, Terminal, keep, planned


def test_the_view_is_not_wider_than_the_terminal(swept: Path) -> None:
    code, text = Terminal(swept, "--once", columns=60).end()
    assert code == 1
    assert "no output for 30 min" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60
    assert "toy tiny 4x1 seed 1: pruner 4x1, step 9: a score is not f…" in text


def test_it_follows_the_sweep_to_its_end(swept: Path) -> None:
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
    # The last view stays.
    assert "3 done  0 running  0 failed  0 waiting" in text.rpartition("multirun_sweeps")[2]
    assert not terminal.text.rpartition("3 done")[2].count("\x1b[2K")
    # Redrawn in place: the cursor moves up before each view, and is shown again at the end.
    assert "\x1b[1A" in terminal.text
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")


def test_a_failure_at_the_end(swept: Path) -> None:
    jobs = planned(swept, 2)
    terminal = Terminal(swept, "--period", "0.05", columns=60)
    terminal.wait_for("1 done  0 running  1 failed")
    code, text = terminal.end()
    assert (code, jobs[1].spec.seed) == (1, 1)
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


def test_more_failures_than_the_terminal_has_lines(watch: Callable[..., Any], swept: Path) -> None:
    jobs = planned(swept, 41)
    for job in jobs[:40]:
        keep(job, "failed", error="not finite")
    terminal = Terminal(swept, "--period", "0.05", lines=20)
    terminal.wait_for("and 34 more")
    keep(jobs[40], "finished")
    code, text = terminal.end()
    assert code == 1
    assert text.count("not finite") >= 40
    assert watch(swept).out.count(": not finite") == 40


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
        deadline = time.monotonic() + PATIENCE
        while not Path("multirun_sweeps/default/plan.json").is_file():
            assert sweep.poll() is None, Path("output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        terminal = Terminal("multirun_sweeps", "--period", "0.2")  # leaves the cores to the sweep
        terminal.wait_for("1 done")
        code, text = terminal.end()
        sweep.wait(PATIENCE)
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
    # A running job was shown: its step, loss and sparsity.
    assert re.search(r"toy tiny (4x1|2:4) seed 0 +\d+ of 30 +\d\.\d{4} +0\.\d{3} ", text)
