"""The command of a job, and the interface of an engine."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hydraprune.errors import INTERRUPTED, MISTAKE, UserError
from hydraprune.utils.signals import REQUEUE

# Exit codes after which the same command need not be tried again: it is done, refused, or was asked to stop.
SETTLED = (0, MISTAKE, INTERRUPTED, REQUEUE)


@dataclass(frozen=True)
class JobCommand:
    """How one job of a sweep is started.

    Args:
        name: for people.
        words: the program and its arguments.
        folder: the current folder of its process; absolute.
        log: the file that gets what the process prints; absolute.
        environment: variables of its own, beside those of the sweep.
        needs: position, in the list that the engine is given, of the job that must have ended before; None: none.
        processes: of the job.
    """

    name: str
    words: tuple[str, ...]
    folder: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: int | None = None
    processes: int = 1

    def start(self) -> subprocess.Popen[bytes]:
        """Start its process, in a session of its own: a Ctrl-C in the terminal reaches the sweep alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as out:
            return subprocess.Popen(
                self._torchrun,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def _torchrun(self) -> tuple[str, ...]:
        """The command, by torchrun where the job has several processes."""
        if self.processes == 1:
            return self.words
        python, *rest = self.words
        return (python, "-m", "hydraprune.jobs.torchrun", "--standalone", f"--nproc-per-node={self.processes}", *rest)

    @property
    def line(self) -> str:
        """The command of one process as a line for a shell, what it prints sent to the job's log."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        words = shlex.join(["env", *variables, *self.words] if variables else self.words)
        return f"{words} >> {shlex.quote(str(self.log))} 2>&1"


class Engine(Protocol):
    """Runs the jobs of a sweep."""

    def check(self) -> None:
        """Refuse to start where the engine cannot work.

        Raises:
            UserError: a program or package is missing, or a key does not fit.
        """

    @property
    def workers(self) -> int | None:
        """Jobs that run at a time; None where only the cluster knows."""

    @property
    def elsewhere(self) -> bool:
        """Whether jobs run on other machines, so that their device cannot be checked here."""

    @property
    def leaves(self) -> bool:
        """Whether `run` returns when the jobs are submitted, before they have ended."""

    def opened(self) -> AbstractContextManager[object]:
        """A context in which several threads may run jobs, each its own."""

    def run(self, commands: Sequence[JobCommand], folder: Path) -> None:
        """Run some jobs; what they did is in their folders.

        A signal to this process (`utils.signals`) stops the jobs, unless they go on without it.

        Args:
            folder: of the sweep, for files of the engine.

        Raises:
            UserError: the engine takes no jobs.
        """


def check_counts(at_once: object, retries: object, fewest: int = 1) -> None:
    """Refuse numbers that no engine can work with.

    Args:
        fewest: the least `at_once`; below 1 for an engine that counts down from all cores.

    Raises:
        UserError: naming the key.
    """
    if at_once is not None and (not _is_whole(at_once) or at_once == 0 or at_once < fewest):  # type: ignore[operator]
        raise UserError("must be a whole number of at least 1, or null", key="at_once", value=at_once)
    if not _is_whole(retries) or retries < 0:  # type: ignore[operator]
        raise UserError("must be a whole number of at least 0", key="retries", value=retries)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
