"""The process of one side of a bench: loads a model in one engine, and times calls as it is told.

Requests and answers are JSON objects, one in each line of standard input and output. What a library prints goes to
standard error. Nothing but the standard library is imported before the cores are chosen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from hydraprune.bench.meter import Meter

if TYPE_CHECKING:
    from hydraprune.bench.engines import Runner


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
        from hydraprune.bench.engines import load

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
