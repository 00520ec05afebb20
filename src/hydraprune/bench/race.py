"""Measures how fast finished models are in different engines: sides take turns in processes of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from hydraprune.bench.machine import cores_for, machine
from hydraprune.bench.models import PreparedModel, load_models, prepare
from hydraprune.bench.options import CALLS, BenchOptions, Side
from hydraprune.bench.places import places
from hydraprune.bench.processes import WorkerProcess
from hydraprune.bench.results import RunningSide, package_versions, side_results, task_figures
from hydraprune.bench.statistics import with_ratios
from hydraprune.bench.workloads import BenchTask
from hydraprune.deploy.text_batches import Inputs
from hydraprune.errors import UserError, single_line
from hydraprune.results.bench_report import BenchReport, Failure

Progress = Callable[[str], None]


def bench(
    models: Sequence[str],
    options: BenchOptions | None = None,
    task: BenchTask | None = None,
    progress: Progress = lambda _: None,
) -> BenchReport:
    """Measure some saved classifiers in every engine that is installed.

    Every side (a model in an engine at a precision) is a process of its own, and all of them are pinned to the same
    cores. They take turns: one of `CALLS` calls, of which the first is not counted, on each workload in every round.

    Args:
        models: folders, those of runs too, or hub ids; the first is what the others are compared with.
        task: for batches of its texts, its metric, and the calibration of int8.
        progress: is told what is done, in a few words.

    Raises:
        UserError: a model cannot be loaded or is no classifier, a length is beyond its positions, there are fewer
            cores than threads, or no side could be measured. A side that fails alone is among `failures`.
    """
    options = options or BenchOptions()
    pinned = cores_for(options.threads)
    started, here = datetime.now(timezone.utc), machine(pinned)
    progress("loading the models")
    prepared = prepare(load_models(models, task is not None), options, task)
    baseline = prepared[0].source.label
    with tempfile.TemporaryDirectory(prefix="hydraprune-bench-") as converted, ExitStack() as processes:
        race = _Race(options, processes, progress)
        for number, model in enumerate(prepared):
            folder = Path(converted, str(number))
            folder.mkdir()
            race.add(model, task, folder, pinned)
        race.start()
        race.run()
        race.finish()
    if not race.sides:
        reasons = dict.fromkeys(f"{f.engine} {f.precision}: {f.reason}" for f in race.failures)
        raise UserError(f"no side could be measured ({'; '.join(reasons)})", key="bench")
    clock = "cpu" if options.threads == 1 else "wall"
    return BenchReport(
        models={model.source.label: model.source.path for model in prepared},
        started=started.isoformat(timespec="seconds"),
        machine=here,
        threads=options.threads,
        rounds=options.rounds,
        calls=CALLS,
        clock=clock,
        versions=package_versions(options),
        sides=tuple(with_ratios(side_results(race.sides, baseline), clock, baseline)),
        failures=tuple(race.failures),
        task=task_figures(prepared[0]),
        runs={model.source.label: run for model in prepared if (run := model.source.run) is not None},
    )


class _Race:
    """The sides that take part, and those that failed.

    Args:
        processes: ends the workers.
    """

    def __init__(self, options: BenchOptions, processes: ExitStack, progress: Progress) -> None:
        self.sides: list[RunningSide] = []
        self.failures: list[Failure] = []
        self._options, self._processes, self._progress = options, processes, progress

    def add(self, model: PreparedModel, task: BenchTask | None, folder: Path, pinned: list[int] | None) -> None:
        """Convert a model into a folder, and start the processes of its sides."""
        self._progress(f"{model.source.label}: converting it")
        for side, place in places(model.source, self._options.sides, task, folder).items():
            if isinstance(place, UserError):
                self._fail(model, side, place)
                continue
            process = WorkerProcess(self._options.threads, pinned)
            self._processes.callback(process.end)
            self.sides.append(RunningSide(model, side, place, process))

    def start(self) -> None:
        """Load all sides, one after the other, and give them what they compute."""
        self._each(self.sides, self._load)

    def run(self) -> None:
        """Every round, on every workload, each side in its turn; another one begins in every round."""
        names = dict.fromkeys(workload.name for side in self.sides for workload in side.model.workloads)
        for number in range(self._options.rounds):
            for name in names:
                self._progress(f"round {number + 1} of {self._options.rounds}: {name}")
                first = number % max(1, len(self.sides))
                self._each(self.sides[first:] + self.sides[:first], partial(self._turn, name, number))

    def finish(self) -> None:
        """Memory and outputs of all sides, whose processes end."""
        self._each(self.sides, self._collect)

    def _each(self, sides: Sequence[RunningSide], act: Callable[[RunningSide], None]) -> None:
        """Let each act. The process of one that fails is ended, which frees its memory."""
        for side in list(sides):
            try:
                act(side)
            except UserError as error:
                self._fail(side.model, side.side, error)
                side.process.end()
                self.sides.remove(side)

    def _fail(self, model: PreparedModel, side: Side, error: UserError) -> None:
        self.failures.append(Failure(model.source.label, side.engine, side.precision, single_line(error)))

    def _load(self, side: RunningSide) -> None:
        self._progress(f"{side.label}: loading it in {side.side}")
        side.started = side.process.ask(
            "start",
            engine=side.side.engine,
            precision=side.side.precision,
            folder=str(side.place.folder),
            threads=self._options.threads,
        )
        for workload in side.model.workloads:
            side.process.ask("add", workload=workload.name, batches=_plain(workload.batches))

    def _turn(self, workload: str, number: int, side: RunningSide) -> None:
        timed = side.process.ask("turn", workload=workload, first=number * (CALLS - 1), calls=CALLS)
        side.wall.setdefault(workload, []).extend(timed["wall"])
        side.cpu.setdefault(workload, []).extend(timed["cpu"])

    def _collect(self, side: RunningSide) -> None:
        self._progress(f"{side.label}: outputs of {side.side}")
        side.memory = side.process.ask("memory")  # before the outputs take some
        texts = side.model.texts
        grid = [batch for workload in side.model.workloads for batch in workload.batches]
        batches = grid if texts is None else texts.evaluation_inputs
        side.logits = side.process.ask("logits", batches=_plain(batches))["logits"]
        side.process.end()


def _plain(batches: Sequence[Inputs]) -> list[dict[str, list[list[int]]]]:
    return [{name: tensor.tolist() for name, tensor in inputs.items()} for inputs in batches]
