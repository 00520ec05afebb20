"""`hydraprune watch` in a terminal, and made-up sweeps to watch."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

from saved_run_helpers import write_whole_model
from spec_helpers import changed

from hydraprune.results.plan_file import Plan, Planned, write_plan
from hydraprune.results.report import RunReport, write_report
from hydraprune.results.run_spec import RunSpec

# Time limit in seconds for a state to be shown, for a busy machine.
PATIENCE = 200.0
WATCH = (sys.executable, "-m", "hydraprune.cli", "watch")


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
            # SIGINT is ignored if the tests run in the background of a shell.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(outer)
        self._inner, self.text = inner, ""

    def read(self) -> str:
        """What it has written so far, without colors."""
        with contextlib.suppress(OSError):
            while piece := os.read(self._inner, 65536):
                self.text += piece.decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text).replace("\r", "")

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in self.read():
            assert time.monotonic() < deadline, f"never {words!r}: {self.text!r}"
            assert self.process.poll() is None, f"ended before {words!r}: {self.text!r}"
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Exit code and all that it wrote."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"never ended: {self.read()!r}"
            self.read()  # so that it never waits for room in the pipe
            time.sleep(0.02)
        return self.process.returncode, self.read()


def planned(folder: Path, count: int) -> list[Planned]:
    """A sweep of jobs that have not started, its plan written an hour ago."""
    blank = Planned(RunSpec("", "c", "sparse", "tiny", "toy", "4x1", 0.9, 0, "fp32"), folder, (), 100)
    jobs = [
        changed(blank, hash=f"h{seed}", seed=seed, directory=folder / f"run{seed}", words=(f"seed={seed}",))
        for seed in range(count)
    ]
    write_plan(Plan((), 1, tuple(jobs), ()), folder)
    begun = time.time() - 3600
    os.utime(folder / "plan.json", (begun, begun))
    return jobs


def keep(job: Planned, status: str, **changes: object) -> None:
    """Write the job's folder as a run of that status does."""
    report = RunReport(replace(job.spec, overrides=job.words, target_sparsity=None), status)
    job.directory.mkdir(parents=True, exist_ok=True)
    if status == "finished":
        write_whole_model(job.directory / "model")
        report = replace(
            report, steps=100, final={"accuracy": 0.75}, dense={"accuracy": 0.5, "run": "x"}, seconds={"total": 200.0}
        )
    write_report(changed(report, **changes), job.directory)


METRICS = (
    '{"step": 40, "epoch": 2, "eval/accuracy": 0.625}\n{"step": 50, "train/loss": 0.4321, "sparsity/global": 0.512}\n'
)


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Modification time and content of every file and folder, by path."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in folder.rglob("*")
    }
