"""One side of the race: a process that reads commands from standard input.

Started by race.py; they exchange one JSON value per line. The side `published` runs published_loop.py;
the others run the project's loop as `train.py` builds it, of this build or of an earlier one: only what
both have may be used here.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Order:
    """The settings that a side is started with; see race.py.

    Args:
        package: the only folder that modules of the package may come from.
        ramp: whether steps at a density below 1 are those before the last mask update; otherwise those after it.
        born: when the process was started.
    """

    side: str
    model: str
    task: str
    data: str
    words: list[str]
    package: str
    threads: int
    steps: int
    ramp: bool
    device: str
    born: float


class Side(Protocol):
    """The commands that race.py sends to a side; all times are in seconds."""

    def about(self) -> dict[str, float]: ...
    def prune(self, density: float) -> float: ...
    def chunk(self, number: int) -> dict[str, float]: ...
    def update(self) -> float: ...


def stratified(sizes: list[int], count: int, number: int) -> list[int]:
    """Indices of `count` sizes that represent all: one from each of `count` equal strata, chosen by `number`."""
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    offset = (0.5 + 0.381966 * number) % 1
    return [order[int((i + offset) * len(order) / count)] for i in range(count)]


@contextmanager
def timed(note: dict[str, float], name: str, wait: Callable[[], None]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    wait()
    note[name] = note.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def watched(owner: Any, method: str, name: str, note: dict[str, float], wait: Callable[[], None]) -> Iterator[None]:
    """Times a method of one object."""
    inner, own = getattr(owner, method), vars(owner).get(method)

    def call(*arguments: Any, **options: Any) -> Any:
        with timed(note, name, wait):
            return inner(*arguments, **options)

    object.__setattr__(owner, method, call)
    try:
        yield
    finally:
        if own is None:
            object.__delattr__(owner, method)
        else:
            object.__setattr__(owner, method, own)


def waiter(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


class Published:
    """The published script's loop."""

    def __init__(self, order: Order) -> None:
        from published_loop import PublishedLoop

        torch.set_num_threads(order.threads)
        torch.manual_seed(0)
        self.order, self.wait, self.density = order, waiter(order.device), 1.0
        self.loop = PublishedLoop.of(Path(order.model), Path(order.data), order.task, order.device)
        self.lengths = [len(ids) for ids in self.loop.rows["input_ids"]]
        self.loop.model.train()
        self.chunk(1000)

    def _batches(self, number: int) -> list[list[int]]:
        from published_loop import BATCH, in_order

        batches = [batch for batch in in_order(len(self.lengths), number) if len(batch) == BATCH]
        sizes = [max(self.lengths[i] for i in batch) for batch in batches]
        return [batches[place] for place in stratified(sizes, self.order.steps, number)]

    def about(self) -> dict[str, float]:
        return {}

    def prune(self, density: float) -> float:
        self.density = density
        if density < 1:
            self.loop.pruner.update(1 - density)
        masks = self.loop.pruner.masks.values()
        return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def chunk(self, number: int) -> dict[str, float]:
        batches = self._batches(number)
        computed = sum(16 * max(self.lengths[i] for i in batch) for batch in batches)
        start, cpu = time.perf_counter(), time.process_time()
        for batch in self.loop.batches(batches):
            self.loop.step(batch)
        self.wait()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        real = sum(self.lengths[i] for batch in batches for i in batch)
        return {"seconds": seconds / len(batches), "cpu": cpu / len(batches), "padding": computed / real}

    def update(self) -> float:
        start = time.perf_counter()
        self.loop.pruner.update(1 - self.density)
        self.wait()
        return time.perf_counter() - start


class Ours:
    """A run composed, checked, set up and stepped as `train.py` does."""

    run: Any
    updated: float | None = None  # seconds of a mask update

    def __init__(self, order: Order) -> None:
        from hydraprune.runs.setup import TaskLoader
        from hydraprune.training.clock import Clock

        self.order, self.wait = order, waiter(order.device)
        self.clock, self.load_data = Clock(), TaskLoader()
        self.teacher = self._prepare([])
        self.ready = time.time() - order.born - self.teacher
        loaded = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "hydraprune"}
        for name, module in loaded.items():
            if order.package not in str(getattr(module, "__file__", order.package)):
                raise SystemExit(f"{name} is not of {order.package}: {module.__file__}")

    def _prepare(self, more: list[str]) -> float:
        """Set the run up; returns the seconds of the teacher's pass."""
        from hydra import compose, initialize_config_dir

        from hydraprune.config.composition import conf_dir
        from hydraprune.runs.experiment import build_experiment
        from hydraprune.runs.preflight import preflight
        from hydraprune.runs.setup import prepare
        from hydraprune.tracking import Silent
        from hydraprune.utils.hub_access import quiet_libraries

        self.run = None
        gc.collect()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            quiet_libraries()
            config = compose("config", [*self.order.words, *more], return_hydra_config=True)
            experiment = build_experiment(config)
            preflight(experiment, self.load_data)
            prepared = prepare(experiment, self.order.model, self.load_data)
        self.run = prepared.training(Silent())
        (self.pruner,) = self.run.pruners
        self.pruner.project(0, self.run.optimizer)
        self.run.model.train()
        return float(prepared.teacher_seconds)

    def _step(self, index: int, indices: Any) -> None:
        from hydraprune.training.step import take_step

        take_step(self.run, [self.run.train.batch(indices)], index, self.clock)

    def _batches(self, number: int) -> list[Any]:
        batches = [batch for batch in self.run.train.order(number) if len(batch) == self.run.train.batch_size]
        sizes = [int(self.run.train.data.lengths[batch].max()) for batch in batches]
        return [batches[place] for place in stratified(sizes, self.order.steps, number)]

    def about(self) -> dict[str, float]:
        from hydraprune.training.evaluation import evaluate

        start = time.perf_counter()
        evaluate(self.run.model, self.run.evaluations, self.run.score, self.run.accelerator)
        seconds = time.perf_counter() - start
        self.run.model.train()
        horizon = self.pruner.criterion.horizon
        return {"start": self.ready, "teacher": self.teacher, "evaluation": seconds, "horizon": horizon}

    def prune(self, density: float) -> float:
        """Set up anew, and train until masks of this density are in force; returns the share of weights they keep.

        Masks are made by a step that ends with the update, as in `train.py`. Steps then have numbers of the run's
        part where it has this density, so that as many of them are scored as there.
        """
        if density < 1:
            self._prepare([f"pattern.target_sparsity={round(1 - density, 6)}"])
        else:
            self._prepare([])
        updates, steps, self.updated = self.pruner.updates, self.order.steps, None
        if density == 1:
            first = updates.start or updates.start + updates.frequency
            self.stretch = range(first - 1)
            if sparse := getattr(self.run, "sparse_steps", None):
                sparse.follow(0)  # as at the start of a training: the kernels may compute whole weights too
        else:
            due = updates.last - updates.frequency * self.order.ramp
            batches = [*self._batches(1000), *self._batches(1001)][-due:]
            for index, indices in zip(range(due - len(batches), due), batches, strict=True):
                self._step(index, indices)
            self.stretch = range(due, updates.last - 1 if self.order.ramp else max(due + 1, self.run.steps))
            if not self.order.ramp:
                self.updated = self._update()
                if sparse := getattr(self.run, "sparse_steps", None):  # which the earlier build has not
                    sparse.follow(due + 2)  # which packs weights
        self.indices = [self.stretch[int((i + 0.5) * len(self.stretch) / steps)] for i in range(steps)]
        for number in (1002, 1003):  # oneDNN compiles code for shapes that it has not met
            self.chunk(number)
        return 1 - float(self.pruner.zeros) / float(self.pruner.total)

    def chunk(self, number: int) -> dict[str, float]:
        batches = self._batches(number)
        lengths = self.run.train.data.lengths
        computed = sum(self.run.train.batch(batch).inputs["input_ids"].numel() for batch in batches)
        start, cpu = time.perf_counter(), time.process_time()
        for index, indices in zip(self.indices, batches, strict=True):
            self._step(index, indices)
        self.wait()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        real = sum(int(lengths[batch].sum()) for batch in batches)
        return {"seconds": seconds / len(batches), "cpu": cpu / len(batches), "padding": computed / real}

    def update(self) -> float:
        return self._update() if self.updated is None else self.updated

    def _update(self) -> float:
        # Scores are complete, and the masks are those in force.
        last = self.pruner.updates.last
        self._step(last - 2, self._batches(0)[0])
        start = time.perf_counter()
        self.pruner.project(last, self.run.optimizer)
        if sparse := getattr(self.run, "sparse_steps", None):
            sparse.follow(last)
        self.wait()
        return time.perf_counter() - start

    def parts(self, number: int) -> dict[str, float]:
        """Seconds of a step by part."""
        note: dict[str, float] = {}
        batches, run = self._batches(number), self.run
        methods = (
            (run.distiller, "loss", "forward"),
            (run.teacher, "outputs", "teacher"),
            (run.accelerator, "backward", "backward"),
            (run.optimizer, "step", "optimizer"),
            (self.pruner, "observe", "score"),
            (self.pruner, "project", "mask"),
        )
        with ExitStack() as watches:
            for owner, method, name in methods:
                watches.enter_context(watched(owner, method, name, note, self.wait))
            start = time.perf_counter()
            for index, chosen in zip(self.indices, batches, strict=True):
                with timed(note, "batch", self.wait):
                    self.run.train.batch(chosen)
                self._step(index, chosen)
            whole = time.perf_counter() - start - note["batch"]  # which was made twice
        note["rest"] = whole - sum(note.values())
        return {name: seconds / len(batches) for name, seconds in note.items()}


def memory() -> dict[str, float]:
    """Peak memory of this process in bytes; on Linux also its resident mapped files."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {"peak": float(peak), "mapped": 0.0}
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        found["mapped"] = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))
    except (OSError, StopIteration):
        pass
    if torch.cuda.is_available():
        found["device"] = float(torch.cuda.max_memory_allocated())
    return found


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries
    side: Any = Published(order) if order.side == "published" else Ours(order)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        found = memory() if name == "memory" else getattr(side, name)(*arguments)
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
