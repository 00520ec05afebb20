"""Whole benches with processes of their own: what is measured, sides that fail, and processes that end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from compact_helpers import save_sparse

from hydraprune.bench import BenchOptions, bench, read_bench
from hydraprune.bench import race as race_module
from hydraprune.bench.processes import WorkerProcess
from hydraprune.errors import UserError

SMALL_TASK = ("task=toy", "task.train_examples=40", "task.evaluation_examples=24")


def workers() -> list[psutil.Process]:
    """Worker processes that this one started and that still run."""
    children = psutil.Process().children()
    running = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "hydraprune.bench.worker" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sparse BERT of one layer and its tokenizer."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_sparse(folder, "bert", num_hidden_layers=1)
    return folder


def test_the_command_measures_and_writes(saved: Path, hydraprune: Callable[..., Any]) -> None:
    done = hydraprune(
        "bench", str(saved), "--engines", "torch,hydraprune", "--precisions", "fp32", "--batch", "1,3", "--length", "6",
        "--rounds", "2", "--out", "made", *SMALL_TASK,
    )  # fmt: skip
    assert done.code == 0, done.err
    report = read_bench(Path("made/bench.json"))
    assert "hydraprune" in done.out
    assert "made/bench.md" in done.out
    assert report.workloads == ["batch 1, 6 tokens", "batch 3, 6 tokens", "batch 1, toy", "batch 3, toy"]
    assert report.models == {"model": str(saved)}
    assert report.task is not None
    assert (report.task.metric, report.task.examples, report.task.of) == ("accuracy", 24, 24)
    assert report.failures == ()
    dense, ours = report.sides
    assert (dense.engine, ours.engine) == ("torch", "hydraprune")
    assert dense.error == 0
    assert ours.error is not None
    assert ours.error < 1e-5
    assert (dense.loss, ours.loss) == (0, 0)
    assert dense.scores == ours.scores
    for side in report.sides:
        assert side.memory_bytes > 0
        assert side.peak_bytes is None or side.peak_bytes >= side.memory_bytes * 0.5
        assert side.load_cpu_seconds > 0
        for timing in side.timings:
            # Two rounds, three calls each, of which the first is not counted.
            assert timing.wall.n == timing.cpu.n == 4
            assert 0 < timing.wall.p50 <= timing.wall.p90 <= timing.wall.p95 <= timing.wall.p99
            assert timing.throughput == pytest.approx(timing.batch / timing.wall.mean)
    assert all(timing.vs_fp32 == timing.vs_any == 1 for timing in dense.timings)
    assert not workers()


def test_a_side_that_dies_leaves_the_others_and_interruption_leaves_no_process(
    saved: Path, monkeypatch: pytest.MonkeyPatch, bad_input: None
) -> None:
    """One worker is killed while it loads; in the first round somebody presses Ctrl-C."""
    options = BenchOptions(engines=["torch", "hydraprune"], precisions=["fp32"], batches=(1,), lengths=(4,), rounds=1)
    races: list[Any] = []
    made = race_module._Race.__init__

    def keep(race: Any, *arguments: Any) -> None:
        made(race, *arguments)
        races.append(race)

    def progress(text: str) -> None:
        if text.endswith("loading it in torch fp32"):
            assert len(workers()) == 2
            os.kill(races[0].sides[0].process.pid, signal.SIGKILL)
        if text.startswith("round 1"):
            (failure,) = races[0].failures
            assert (failure.engine, failure.precision, failure.reason) == ("torch", "fp32", "ended by SIGKILL")
            assert len(workers()) == len(races[0].sides) == 1
            raise KeyboardInterrupt

    monkeypatch.setattr(race_module._Race, "__init__", keep)
    with pytest.raises(KeyboardInterrupt):
        bench([str(saved)], options, None, progress)
    assert not workers()


def test_where_no_side_is_left_the_reasons_are_given(saved: Path, bad_input: None) -> None:
    options = BenchOptions(engines=["openvino"], precisions=["int8"], batches=(1,), lengths=(4,), rounds=1)
    with pytest.raises(UserError, match=r"no side could be measured \(openvino int8: is calibrated on"):
        bench([str(saved)], options)
    assert not workers()


def test_a_worker_says_in_one_line_why_it_ended(bad_input: None) -> None:
    process = WorkerProcess(1, None)
    try:
        with pytest.raises(UserError, match="ValueError: no request is called nonsense"):
            process.ask("nonsense")
        with pytest.raises(UserError, match="no request is called nonsense"):
            process.ask("memory")  # it is gone
    finally:
        process.end()
        process.end()


def test_a_worker_runs_on_its_cores_with_its_threads() -> None:
    core = max(psutil.Process().cpu_affinity()) if sys.platform == "linux" else 0
    process = WorkerProcess(3, [core])
    try:
        assert process.ask("memory")["resident"] > 0
        worker = psutil.Process(process.pid)
        assert worker.environ()["OMP_NUM_THREADS"] == "3"
        if sys.platform == "linux":
            assert worker.cpu_affinity() == [core]
    finally:
        process.end()
    assert not psutil.pid_exists(process.pid)


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os, signal; from hydraprune.bench.processes import WorkerProcess\n"
        "process = WorkerProcess(1, None); process.ask('memory'); print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    try:
        psutil.Process(int(done.stdout)).wait(20)
    except psutil.NoSuchProcess:
        return


def test_answers_are_json_whatever_libraries_print() -> None:
    """A worker's standard output is for answers alone: what is printed there goes to standard error."""
    program = (
        "import os, sys; from hydraprune.bench import worker as bench_worker\n"
        "class Loud(bench_worker.Worker):\n"
        "    def memory(self):\n"
        "        print('progress'); os.write(1, b'from C'); return super().memory()\n"
        "bench_worker.Worker = Loud; sys.exit(bench_worker.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input='{"do": "memory"}\n' * 2, capture_output=True, text=True, check=True,
        env=dict(os.environ),
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(answer) for answer in answers] == [{"resident", "peak"}] * 2
    assert "from C" in done.stderr
