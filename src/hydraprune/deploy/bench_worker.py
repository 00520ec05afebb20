"""The process of one side of a bench: loads a model in one engine, and times calls as it is told.

Requests and answers are JSON objects, one in each line of standard input and output. What a library prints goes to
standard error. Nothing but the standard library is imported before the cores are chosen.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydraprune.deploy.bench_engines import Runner


class Meter:
    """Time and memory that a model takes to load, and memory from then on."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._before = 0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """The block in which the model is loaded; its libraries were imported before."""
        gc.collect()
        _forget_peak()
        self._before = _resident()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu

    def resident(self) -> int:
        """Bytes in memory now, above those before loading."""
        gc.collect()
        return max(0, _resident() - self._before)

    def peak(self) -> int | None:
        """The most bytes since loading began, above those before it; None where the system does not tell."""
        highest = _proc_status("VmHWM")
        return None if highest is None else max(0, highest - self._before)


class Worker:
    """The model of this process, and the batches that it computes."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._runner: Runner | None = None
        self._workloads: dict[str, list[Any]] = {}

    def start(self, engine: str, precision: str, folder: str, threads: int) -> dict[str, Any]:
        """Load a model.

        Returns:
            `note` of the engine, `seconds` and `cpu_seconds`.
        """
        from hydraprune.deploy.bench_engines import load

        self._runner = load(engine, precision, folder, threads, self._meter)
        return {
            "note": self._runner.note,
            "seconds": self._meter.seconds,
            "cpu_seconds": self._meter.cpu_seconds,
        }

    def add(self, workload: str, batches: list[dict[str, list[list[int]]]]) -> dict[str, Any]:
        """Take the batches of a workload, and compute each once: engines prepare for shapes that they see."""
        runner = self._loaded
        self._workloads[workload] = [runner.prepare(batch) for batch in batches]
        for prepared in self._workloads[workload]:
            runner.compute(prepared)
        return {}

    def turn(self, workload: str, first: int, calls: int) -> dict[str, Any]:
        """Time calls; the first, which is not counted, finds the caches as another engine left them.

        Args:
            first: the batch of the call that is not counted and of the next one; the others follow.

        Returns:
            `wall` and `cpu`: seconds of the counted calls.
        """
        compute, batches = self._loaded.compute, self._workloads[workload]
        order = [first, *range(first, first + calls - 1)]
        wall, cpu = [], []
        for number in order:
            batch = batches[number % len(batches)]
            before, cpu_before = time.perf_counter(), time.process_time()
            compute(batch)
            cpu.append(time.process_time() - cpu_before)
            wall.append(time.perf_counter() - before)
        return {"wall": wall[1:], "cpu": cpu[1:]}

    def logits(self, batches: list[dict[str, list[list[int]]]]) -> dict[str, Any]:
        """The outputs for some batches: `logits`, [texts, labels]."""
        runner = self._loaded
        return {"logits": [row for batch in batches for row in runner.logits(runner.compute(runner.prepare(batch)))]}

    def memory(self) -> dict[str, Any]:
        """`resident` and `peak` bytes since before loading."""
        return {"resident": self._meter.resident(), "peak": self._meter.peak()}

    @property
    def _loaded(self) -> Runner:
        if self._runner is None:
            raise RuntimeError("no model is loaded")
        return self._runner


REQUESTS = ("start", "add", "turn", "logits", "memory")


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _proc_status(name: str) -> int | None:
    """Bytes of a line of /proc/self/status. `getrusage` will not do: its peak is inherited from the parent process."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
    except OSError:
        return None


def _forget_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # no Linux, or not allowed: the peak may then be that of an import


def main() -> int:
    """Answer requests until standard input ends; the argument names the cores, as in `0,1`.

    Returns:
        The exit code; 1 after an error, whose message is the last line of standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    cores = [int(core) for core in sys.argv[1].split(",") if core] if len(sys.argv) > 1 else []
    if cores and sys.platform == "linux":
        os.sched_setaffinity(0, cores)
    worker = Worker()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            name = request.pop("do")
            if name not in REQUESTS:
                raise ValueError(f"no request is called {name}")
            answer = getattr(worker, name)(**request)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except Exception as error:  # whatever an engine raises is the reason why its side fails
        print(f"\n{_one_line(error)}", file=sys.stderr, flush=True)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    from hydraprune.errors import one_line

    return one_line(error)


if __name__ == "__main__":
    raise SystemExit(main())
