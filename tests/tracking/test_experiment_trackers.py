"""TensorBoard, MLflow and trackio: what they record of a run. Each is skipped where its package is not installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hydraprune.errors import UserError
from hydraprune.tracking import MLflow, TensorBoard, Trackio
from hydraprune.tracking import experiment_trackers as module


class Recorder:
    """Stands in for a library: records its calls by name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            return {"search_runs": [], "get_experiment_by_name": None}.get(
                name, SimpleNamespace(info=SimpleNamespace(run_id="run"))
            )

        return call

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, options) for own, arguments, options in self.calls if own == name]


def run(train: Callable[..., Any], small: Sequence[str], *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of metrics.jsonl and the report of a sparse run with these words, from a dense model."""
    finished = train(*small, "pattern=4x1", *words)
    assert finished.code == 0, finished.err
    (path,) = Path("outputs").glob("toy/tiny/4x1/*/report.json")
    assert "continues without its tracker" not in (path.parent / "train.log").read_text()
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    return lines, json.loads(path.read_text())


def test_mlflow_gets_the_metrics_under_their_names(
    monkeypatch: pytest.MonkeyPatch, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    client = Recorder()
    entities = SimpleNamespace(Param=lambda *fields: fields, Metric=lambda *fields: fields)
    library = SimpleNamespace(MlflowClient=lambda uri: client, entities=entities)
    monkeypatch.setattr(module, "_package", lambda *_: library)
    lines, report = run(train, small, "tracker=mlflow", "tracker.uri=nowhere")
    sparse = [options["tags"] for _, options in client.named("create_run")][-1]
    assert sparse["hydraprune.hash"] == report["hash"]
    assert sparse["group"].endswith(report["cell"])
    batches = [options for _, options in client.named("log_batch")]
    logged = {(name, step): value for batch in batches for name, value, _, step in batch.get("metrics", [])}
    assert ("pattern.rows", "4") in [pair for batch in batches for pair in batch.get("params", [])]
    assert all(len(batch.get("params", [])) <= 100 for batch in batches)
    for line in lines:
        for name, value in line.items():
            assert name == "step" or logged[name, line["step"]] == value
    assert logged["final/accuracy", report["steps"]] == report["final"]["accuracy"]
    assert [arguments for arguments, _ in client.named("set_terminated")] == [("run", "FINISHED")] * 2


def test_trackio_gets_the_metrics_under_their_names(
    monkeypatch: pytest.MonkeyPatch, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    library = Recorder()
    monkeypatch.setattr(module, "_package", lambda *_: library)
    lines, report = run(train, small, "tracker=trackio")
    _, options = library.named("init")[-1]
    assert options["group"].endswith(report["cell"])
    assert options["config"]["pattern.rows"] == 4
    logged = [(options.get("step"), arguments[0]) for arguments, options in library.named("log")]
    assert all((line.pop("step"), line) in logged for line in lines)
    assert len(library.named("finish")) == 2


def test_tensorboard_writes_event_files(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines, report = run(train, small, "tracker=tensorboard")
    (folder,) = Path("outputs").glob("toy/tiny/4x1/*/tensorboard")
    events = EventAccumulator(str(folder))
    events.Reload()
    for name in ("train/loss", "eval/accuracy", "sparsity/global"):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected
    (final,) = events.Scalars("final/accuracy")
    assert final.value == pytest.approx(report["final"]["accuracy"])


@pytest.mark.parametrize("made", [TensorBoard, MLflow, Trackio])
def test_a_missing_package_is_named_before_training(made: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"needs the package (\w+), which cannot be imported .*; pip install \1"):
        made()
