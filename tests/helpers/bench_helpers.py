"""A small bench report, and a task of the toy language for benches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hydraprune.bench.workloads import BenchTask
from hydraprune.data.examples import Examples, Labels
from hydraprune.data.toy import generate
from hydraprune.results.bench_report import BenchReport, Distribution, Failure, Machine, SideResult, TaskFigures, Timing


def accuracy(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    hits = sum(guess == label for guess, label in zip(predictions, references, strict=True))
    return {"accuracy": hits / len(references)}


def toy_task(examples: int = 24) -> BenchTask:
    train, evaluation = generate(40, examples, 0)
    return BenchTask(
        name="toy",
        examples=Examples([(text,) for text, _ in evaluation], [label for _, label in evaluation]),
        calibration=[(text,) for text, _ in train],
        labels=Labels(("negative", "positive")),
        max_length=24,
        metric="accuracy",
        score=accuracy,
    )


def timing(median: float, workload: str = "batch 1, 8 tokens", tokens: float = 8) -> Timing:
    spread = Distribution(6, median, 0.0, median, median, median, median)
    return Timing(workload, 1, 8, tokens, spread, spread, 1 / median)


def side(engine: str, precision: str, *timings: Timing, model: str = "model") -> SideResult:
    return SideResult(model, engine, precision, "1.0", None, 1000, 0.1, 0.1, 2000, None, timings)


def small_report() -> BenchReport:
    timings = (timing(0.004), timing(0.002, "batch 1, toy", 7.5))
    scored = replace(side("torch", "fp32", *timings), scores={"accuracy": 0.75}, loss=0.0, error=0.0)
    fast = replace(side("hydraprune", "bf16", *timings), note="fused | bf16", peak_bytes=5000)
    return BenchReport(
        models={"model": "runs/model"},
        started="2026-01-01T00:00:00+00:00",
        machine=Machine("A <fast> CPU", ("avx2",), 2, (1,), 10**9, (0.5, 0.25, 0.125), "Linux"),
        threads=1,
        rounds=3,
        calls=3,
        clock="cpu",
        versions={"torch": "2.13.0"},
        sides=(scored, fast),
        failures=(Failure("model", "openvino", "fp32", "the package openvino is not installed"),),
        task=TaskFigures("toy", "accuracy", 24, 100),
    )
