"""`engine=joblib` and `engine=ray`: jobs by the workers of another library's pool."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError, one_line
from hydraprune.jobs.base import JobCommand, check_counts
from hydraprune.jobs.local import is_lost, ready, run_job
from hydraprune.utils import signals
from hydraprune.utils.signals import REQUEUE

log = logging.getLogger(__name__)

# Seconds between two looks at what has ended, and at signals.
_PERIOD = 0.5


@dataclass(frozen=True)
class Joblib:
    """Workers of a joblib backend: threads here, or those of a cluster whose backend is registered with joblib.

    Args:
        at_once: jobs that run at a time; None or -1: as many as there are cores, -2: one less.
        retries, stop_at_first_failure: see `Here`.
        backend: name of the backend, such as `threading` or `dask`.
    """

    at_once: int | None = None
    retries: int = 0
    stop_at_first_failure: bool = False
    backend: str = "threading"

    leaves = False

    @property
    def workers(self) -> int:
        count = -1 if self.at_once is None else self.at_once
        return count if count > 0 else max(1, (os.cpu_count() or 1) + 1 + count)

    @property
    def elsewhere(self) -> bool:
        return self.backend not in ("threading", "loky", "multiprocessing")

    def check(self) -> None:
        check_counts(self.at_once, self.retries, fewest=-(1 << 20))
        _require("joblib", "joblib")

    def opened(self) -> AbstractContextManager[object]:
        return nullcontext()

    def run(self, commands: Sequence[JobCommand], folder: Path) -> None:
        trouble: list[Exception] = []

        def work() -> None:
            try:
                self._run(commands)
            except Exception as error:
                trouble.append(error)

        # joblib waits without end, and signals are looked for here.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        told = False
        while thread.is_alive():
            thread.join(_PERIOD)
            if signals.is_stopping() and not told and not self.elsewhere:
                told = True
                signals.terminate_children()
        for error in trouble:
            raise error

    def _run(self, commands: Sequence[JobCommand]) -> None:
        from joblib import Parallel, delayed

        codes: dict[int, int] = {}
        needed = {command.needs for command in commands}
        first = [number for number, command in enumerate(commands) if number in needed]
        for batch in (first, [number for number in range(len(commands)) if number not in needed]):
            pool = Parallel(
                self.workers, backend=self.backend, pre_dispatch=self.workers, return_as="generator_unordered"
            )
            for number, code in pool(
                delayed(_numbered)(number, commands[number], self.retries)
                for number in batch
                if not is_lost(commands[number], codes) and not self._is_over(codes)
            ):
                codes[number] = code

    def _is_over(self, codes: Mapping[int, int]) -> bool:
        return signals.is_stopping() or (self.stop_at_first_failure and any(codes.values()))


def _numbered(number: int, command: JobCommand, retries: int) -> tuple[int, int]:
    return number, run_job(command, retries)


@dataclass(frozen=True)
class Ray:
    """Tasks of a Ray cluster; of one that is started here, on this machine, if none is named.

    The machines of the cluster share a file system with this one, and have the same environment of Python.

    Args:
        at_once: jobs that run at a time; None: as many as the cluster has room for.
        retries, stop_at_first_failure: see `Here`.
        address: of the cluster: `auto`, `host:port` or `ray://host:port`; None: a new one on this machine.
        cpus, gpus: that each job is given.
    """

    at_once: int | None = None
    retries: int = 0
    stop_at_first_failure: bool = False
    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    leaves = False

    @property
    def workers(self) -> int | None:
        return self.at_once

    @property
    def elsewhere(self) -> bool:
        return self.address is not None

    def check(self) -> None:
        check_counts(self.at_once, self.retries)
        for key, least in (("cpus", self.cpus), ("gpus", self.gpus)):
            if least < 0:
                raise UserError("must be at least 0", key=f"engine.{key}", value=least)
        _require("ray", "ray")

    @contextmanager
    def opened(self) -> Iterator[None]:
        # Its statistics of use would be sent to a server of the authors.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        try:
            yield
        finally:
            if started:
                ray.shutdown()

    def run(self, commands: Sequence[JobCommand], folder: Path) -> None:
        with self.opened():
            import ray

            self._run(ray, commands)

    def _connect(self, ray: Any) -> None:
        # It puts a handler of its own in the place of ours (`ray.init`, under "Note").
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            cure = "start one with `ray start --head`, or leave the address out"
            raise UserError(
                f"no cluster answers ({one_line(error)})", key="engine.address", value=self.address, cure=cure
            ) from None
        finally:
            signal.signal(signal.SIGTERM, handler)

    def _run(self, ray: Any, commands: Sequence[JobCommand]) -> None:
        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(run_job)
        waiting, codes = list(range(len(commands))), dict[int, int]()
        running: dict[Any, int] = {}
        told = False
        while waiting or running:
            room = len(commands) if self.at_once is None else self.at_once - len(running)
            waiting = [number for number in waiting if not is_lost(commands[number], codes)]
            for number in ready(waiting, commands, codes)[:room]:
                waiting.remove(number)
                running[task.remote(commands[number], self.retries)] = number
            ended, _ = ray.wait(list(running), timeout=_PERIOD) if running else ([], [])
            for reference in ended:
                codes[running[reference]] = _result(ray, reference, commands[running[reference]])
                del running[reference]
            if signals.is_stopping() or (self.stop_at_first_failure and any(codes.values())):
                waiting = []
            if signals.is_stopping() and not told:
                told = True
                for reference in running:
                    ray.cancel(reference)


def _result(ray: Any, reference: Any, command: JobCommand) -> int:
    """The exit code of a task that has ended; 1 where Ray lost it."""
    try:
        return int(ray.get(reference))
    except ray.exceptions.TaskCancelledError:
        return REQUEUE
    except ray.exceptions.RayError as error:
        log.warning("%s: Ray lost its worker (%s)", command.name, one_line(error))
        return 1


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError("is not installed", key=package, cure=f"pip install 'hydraprune[{extra}]'")
