"""Sweeps in forked processes, and the files that they leave."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.global_hydra import GlobalHydra

from hydraprune.cli import main
from hydraprune.utils import signals
from hydraprune.utils.files import folders_with

# Time limit in seconds for a state to be reached, for a busy machine.
_PATIENCE = 200.0
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


class Forked:
    """A command of hydraprune in a forked process, without the time of imports, in a process group of its own.

    Args:
        arguments: of the command line.
        output: the file that gets what the process prints.
    """

    def __init__(self, arguments: list[str], output: Path) -> None:
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run_command(arguments, output)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, seconds: float = _PATIENCE) -> int:
        """Wait for the process to end; returns its exit code."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, "the process did not end"
            time.sleep(0.01)
        return code


def _run_command(arguments: list[str], output: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signals.reset()
        logging.getLogger().handlers.clear()
        GlobalHydra.instance().clear()
        os.environ.pop("HYDRA_FULL_ERROR", None)
        sys.argv = ["hydraprune", *arguments]
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Sweep:
    """`hydraprune train -m ...` in a process of its own, started in the current folder."""

    def __init__(self, *words: str) -> None:
        self.output = Path(f"output-{time.monotonic_ns()}")
        self.output.touch()
        self.process = Forked(["train", "-m", *words], self.output)

    def wait_for(self, state: Callable[[], Any], what: str) -> Any:
        """Wait until a state is reached, and return it."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if found := state():
                return found
            assert self.process.poll() is None, f"ended before {what}: {self.output.read_text()}"
            time.sleep(0.01)
        raise AssertionError(f"never {what}: {self.output.read_text()}")

    def end(self) -> tuple[int, str]:
        """Wait for the process to end; returns its exit code and output."""
        return self.process.wait(), self.output.read_text()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def reports(*below: str) -> dict[Path, dict[str, Any]]:
    """The reports below some folders, by directory."""
    found = (place for folder in below for place in folders_with("report.json", Path(folder)))
    return {place: json.loads((place / "report.json").read_text()) for place in found}


def with_status(status: str, *below: str) -> list[Path]:
    return [directory for directory, report in reports(*below).items() if report["status"] == status]


def training(folder: str) -> list[Path]:
    """Directories of running jobs that have written metrics."""
    return [
        directory
        for directory in with_status("started", folder)
        if (directory / "metrics.jsonl").is_file() and (directory / "metrics.jsonl").stat().st_size
    ]


def kept(directories: list[Path]) -> dict[Path, tuple[int, bytes]]:
    """Times and contents of the files that must not change in finished runs."""
    files = [directory / name for directory in directories for name in ("report.json", "metrics.jsonl")]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def assert_whole(jobs: int) -> None:
    """Assert that every run is finished and that no step was logged twice."""
    found = reports("outputs", "multirun_sweeps")
    assert [report["status"] for report in found.values()] == ["finished"] * len(found)
    assert len(with_status("finished", "multirun_sweeps")) == jobs
    for directory, report in found.items():
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert (directory / "model" / "model.safetensors").is_file()
        losses = [line["step"] for line in lines if "train/loss" in line]
        assert losses == sorted(set(losses))
        assert [line["epoch"] for line in lines if "epoch" in line] == [*range(1, report["steps"] // 10 + 1)]
