"""Worker processes of a bench, as the process that started them sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydraprune.errors import UserError, single_line
from hydraprune.utils.redaction import redact_known
from hydraprune.utils.system import SPINS

# Read by the libraries of the engines when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_SPINS = "GOMP_SPINCOUNT"
_SECONDS_TO_END = 5.0
_MOST_CHARACTERS = 300


class WorkerProcess:
    """A process that runs `hydraprune.bench.worker`. It is ended by `end`, and ends by itself with this one.

    Args:
        threads: of its libraries.
        cores: numbers of those that it is pinned to; None: not pinned.
    """

    def __init__(self, threads: int, cores: Sequence[int] | None) -> None:
        environment = {
            **os.environ,
            **dict.fromkeys(_THREADS, str(threads)),
            # Nothing of the current folder is imported; nothing but errors is printed.
            "PYTHONSAFEPATH": "1",
            "PYTHONWARNINGS": "ignore",
        }
        if "OMP_WAIT_POLICY" not in os.environ:
            environment.setdefault(_SPINS, str(SPINS))  # threads of a side that has had its turn leave the cores
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hydraprune.bench.worker", ",".join(map(str, cores or ()))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            # Ctrl-C reaches this process alone, which ends the workers.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, request: str, **values: Any) -> dict[str, Any]:
        """Send a request, and wait for the answer.

        Args:
            request: a name of `worker.REQUESTS`; `values` are its arguments.

        Raises:
            UserError: the process ended instead: with the last line of its standard error as the reason.
        """
        sent, received = self._process.stdin, self._process.stdout
        assert sent is not None
        assert received is not None
        try:
            sent.write(json.dumps({"do": request, **values}).encode() + b"\n")
            sent.flush()
            answer: dict[str, Any] = json.loads(received.readline())
        except (OSError, ValueError):  # no answer, or half of one
            raise UserError(self._why()) from None
        return answer

    def _why(self) -> str:
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        last = next((single_line(line) for line in reversed(lines) if line.strip()), "")
        if code < 0:
            last = f"ended by {_signal_name(-code)}{f' ({last})' if last else ''}"
        return redact_known(last)[:_MOST_CHARACTERS] or f"ended with exit code {code}"

    def end(self) -> None:
        """End the process, and wait until it is gone; may be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
