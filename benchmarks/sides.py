"""One side of the race: a process that reads commands from standard input.

Started by training_step.py; they exchange one JSON value per line. The side `published` runs
published_loop.py; the others run the project's loop as `train.py` builds it, in fp32 or bf16.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Order:
    """The settings that a side is started with; see training_step.py."""

    side: str
    task: str
    folder: str
    threads: int
    steps: int
    device: str
    born: float


class Side(Protocol):
    """The commands that training_step.py sends to a side; all times are in seconds."""

    def about(self) -> dict[str, float]: ...
    def chunk(self, number: int) -> dict[str, float]: ...
    def update(self) -> float: ...
    def save(self) -> dict[str, float]: ...
    def parts(self, number: int) -> dict[str, float]: ...


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


def waiter(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


class Published:
    """Side A: the published script's loop."""

    def __init__(self, order: Order) -> None:
        from datasets import load_from_disk
        from published_loop import PublishedLoop
        from torch import nn
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(order.threads)
        torch.manual_seed(0)
        self.order, self.wait = order, waiter(order.device)
        self.folder = Path(order.folder)
        model = AutoModelForSequenceClassification.from_pretrained(self.folder / "model")
        tokenizer = AutoTokenizer.from_pretrained(self.folder / "model")
        rows = load_from_disk(str(self.folder / "task"))["train"]
        texts = [column for column in rows.column_names if column != "label"]
        rows = rows.map(
            lambda batch: tokenizer(*(batch[text] for text in texts), truncation=True, max_length=128),
            batched=True,
            remove_columns=texts,
        ).rename_column("label", "labels")
        pruned = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".encoder." in n}
        recipe = {"mrpc": (1e-3, 1e-3, 5.0), "sst2": (5e-5, 5e-5, 2.0)}[order.task]
        self.loop = PublishedLoop(model, tokenizer, rows, pruned, *recipe, cpu=order.device == "cpu")
        self.lengths = [len(ids) for ids in rows["input_ids"]]
        self.loop.model.train()
        for batch in self.loop.batches(self._batches(1000)):
            self.loop.step(batch)
        self.loop.pruner.update(0.6)

    def _batches(self, number: int) -> list[list[int]]:
        order = torch.randperm(len(self.lengths), generator=torch.Generator().manual_seed(number)).tolist()
        batches = [order[start : start + 16] for start in range(0, len(order) - 15, 16)]
        sizes = [max(self.lengths[i] for i in batch) for batch in batches]
        return [batches[place] for place in stratified(sizes, self.order.steps, number)]

    def about(self) -> dict[str, float]:
        return {"steps_per_epoch": -(-len(self.lengths) // 16)}

    def chunk(self, number: int) -> dict[str, float]:
        batches = self._batches(number)
        computed = sum(16 * max(self.lengths[i] for i in batch) for batch in batches)
        start = time.perf_counter()
        for batch in self.loop.batches(batches):
            self.loop.step(batch)
        self.wait()
        seconds = (time.perf_counter() - start) / len(batches)
        real = sum(self.lengths[i] for batch in batches for i in batch)
        return {"seconds": seconds, "padding": computed / real}

    def update(self) -> float:
        start = time.perf_counter()
        self.loop.pruner.update(0.6)
        self.wait()
        return time.perf_counter() - start

    def save(self) -> dict[str, float]:
        place = self.folder / "state"
        start = time.perf_counter()
        self.loop.save(place)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        shutil.rmtree(place)
        return {"seconds": seconds, "bytes": size}

    def parts(self, number: int) -> dict[str, float]:
        return {}


class Ours:
    """Side B: composed, checked, set up and run as `train.py` does."""

    def __init__(self, order: Order) -> None:
        from hydra import compose, initialize_config_dir

        from hydraprune.config.composition import conf_dir
        from hydraprune.runs.experiment import build_experiment
        from hydraprune.runs.preflight import preflight
        from hydraprune.runs.setup import TaskLoader, prepare
        from hydraprune.tracking import Silent
        from hydraprune.training.clock import Clock
        from hydraprune.utils.hub_access import quiet_libraries

        self.order, self.wait = order, waiter(order.device)
        self.folder, self.clock = Path(order.folder), Clock()
        words = [
            f"task={order.task}",
            f"task.path={self.folder / 'task'}",
            "model=bert_mini",
            f"model.path={self.folder / 'model'}",
            f"dense.source={self.folder / 'model'}",
            "pattern=4x1",
            f"training.precision={order.side}",
            f"training.device={order.device}",
            f"runtime.threads={order.threads}",
            f"cache.dir={self.folder / f'cache-{order.side}'}",
            f"run.root={self.folder / 'outputs'}",
        ]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            quiet_libraries()
            config = compose("config", words, return_hydra_config=True)
            experiment, load_data = build_experiment(config), TaskLoader()
            preflight(experiment, load_data)
            prepared = prepare(experiment, str(self.folder / "model"), load_data)
        self.run = prepared.training(Silent())
        self.tokenizer, self.teacher_seconds = prepared.tokenizer, prepared.teacher_seconds
        self.ready = time.time() - order.born - self.teacher_seconds
        (self.pruner,) = self.run.pruners
        self.run.model.train()
        updates = self.pruner.updates
        self.due = updates.start + updates.count // 2 * updates.frequency
        warm = [*self._batches(1000), *self._batches(1001)]
        for index, indices in zip(range(self.due - len(warm), self.due), warm, strict=True):
            self._step(index, indices)

    def _step(self, index: int, indices: Any) -> None:
        from hydraprune.training.step import take_step

        take_step(self.run, [self.run.train.batch(indices)], index, self.clock)

    def _batches(self, number: int) -> list[Any]:
        batches = [batch for batch in self.run.train.order(number) if len(batch) == self.run.train.batch_size]
        sizes = [int(self.run.train.data.lengths[batch].max()) for batch in batches]
        return [batches[place] for place in stratified(sizes, self.order.steps, number)]

    def _indices(self) -> list[int]:
        """Steps between two updates of the ramp, with the same share of scored steps as between all of them."""
        stretch, steps = self.pruner.updates.frequency, self.order.steps
        scored = round(steps * min(1.0, self.pruner.criterion.horizon / stretch))
        first = self.due + stretch - min(stretch, self.pruner.criterion.horizon)
        return [*range(self.due + 1, self.due + 1 + steps - scored), *range(first + 1, first + 1 + scored)]

    def about(self) -> dict[str, float]:
        from hydraprune.training.evaluation import evaluate

        start = time.perf_counter()
        evaluate(self.run.model, self.run.evaluations, self.run.score, self.run.accelerator)
        return {
            "steps_per_epoch": self.run.steps_per_epoch,
            "frequency": self.pruner.updates.frequency,
            "horizon": self.pruner.criterion.horizon,
            "epochs": self.run.settings.epochs,
            "start": self.ready,
            "teacher": self.teacher_seconds,
            "evaluation": time.perf_counter() - start,
        }

    def chunk(self, number: int) -> dict[str, float]:
        batches = self._batches(number)
        lengths = self.run.train.data.lengths
        computed = sum(self.run.train.batch(batch).inputs["input_ids"].numel() for batch in batches)
        start = time.perf_counter()
        for index, indices in zip(self._indices(), batches, strict=True):
            self._step(index, indices)
        self.wait()
        seconds = (time.perf_counter() - start) / len(batches)
        return {"seconds": seconds, "padding": computed / sum(int(lengths[batch].sum()) for batch in batches)}

    def update(self) -> float:
        # Just before an update: the scores are complete, and the masks are those of the previous update.
        self._step(self.due + self.pruner.updates.frequency - 2, self._batches(0)[0])
        start = time.perf_counter()
        self.pruner.project(self.due)
        self.wait()
        return time.perf_counter() - start

    def save(self) -> dict[str, float]:
        from hydraprune.models.pretrained import PretrainedModel
        from hydraprune.models.saving import save_model
        from hydraprune.results.sparsity_counts import count_sparsity

        start = time.perf_counter()
        place = self.folder / f"saved-{self.order.side}"
        place.mkdir()
        saved = save_model(self.run.model, self.tokenizer, place)
        count_sparsity(PretrainedModel("saved", str(saved)).load(), self.run.pruners)
        seconds = time.perf_counter() - start
        cache = self.folder / f"cache-{self.order.side}"
        size = sum(file.stat().st_size for place in (saved, cache) for file in place.rglob("*") if file.is_file())
        shutil.rmtree(saved, ignore_errors=True)
        return {"seconds": seconds, "bytes": size}

    def parts(self, number: int) -> dict[str, float]:
        """Seconds of a step by part; `score` is the mean over all steps between two updates, scored or not."""
        note: dict[str, float] = {}
        real = self.run
        self.run = replace(
            real,
            distiller=Watched(real.distiller, {"loss": "forward"}, note, self.wait),
            teacher=Watched(real.teacher, {"outputs": "teacher"}, note, self.wait),
            pruners=tuple(
                Watched(p, {"observe": "score", "project": "mask"}, note, self.wait)  # type: ignore[misc]
                for p in real.pruners
            ),
            optimizer=Watched(real.optimizer, {"step": "optimizer"}, note, self.wait),
            accelerator=Watched(real.accelerator, {"backward": "backward"}, note, self.wait),
        )
        batches, indices = self._batches(number), self._indices()
        start = time.perf_counter()
        try:
            for index, chosen in zip(indices, batches, strict=True):
                with timed(note, "batch", self.wait):
                    self.run.train.batch(chosen)
                self._step(index, chosen)
        finally:
            self.run = real
        whole = time.perf_counter() - start - note["batch"]  # which was made twice
        note["rest"] = whole - sum(note.values())
        return {name: seconds / len(batches) for name, seconds in note.items()}

    def plain(self, number: int) -> dict[str, float]:
        """`parts` without compiled code, by torch alone."""
        from hydraprune.kernels import dropout
        from hydraprune.sparsity import saliency_kernels as products

        before = products._compiled, dropout._compiled
        products._compiled = dropout._compiled = None
        try:
            self.parts(number)
            return self.parts(number)
        finally:
            products._compiled, dropout._compiled = before

    def compiled(self) -> bool:
        from hydraprune.sparsity import saliency_kernels as products

        return products._compiled is not None


class Watched:
    """A wrapper of an object that times some of its methods."""

    def __init__(self, inner: Any, methods: dict[str, str], note: dict[str, float], wait: Callable[[], None]) -> None:
        self._inner, self._methods, self._note, self._wait = inner, methods, note, wait

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._methods:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            with timed(self._note, self._methods[name], self._wait):
                return found(*arguments, **options)

        return call


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
