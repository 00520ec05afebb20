"""The engines of a bench, in this process: each side computes what torch computes, at its precision."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from bench_helpers import toy_task
from compact_helpers import save_sparse
from model_helpers import save_tiny, small_model

from hydraprune.bench.engines import load
from hydraprune.bench.meter import Meter
from hydraprune.bench.models import PreparedModel, load_models, prepare
from hydraprune.bench.options import REFERENCE, BenchOptions, Side
from hydraprune.bench.places import Place, places, weights_bytes
from hydraprune.bench.results import relative_error
from hydraprune.bench.workloads import bench_inputs, subset
from hydraprune.deploy import save_compact
from hydraprune.errors import UserError

OPTIONS = BenchOptions(batches=(1, 3), lengths=(5, 24), rounds=2)
# Largest relative error of the logits. The models are small and random: errors of real ones are other ones.
LIMITS = {"fp32": 1e-5, "bf16": 5e-2, "int8": 0.3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    """A sparse BERT of one layer, prepared with a task."""
    folder = tmp_path_factory.mktemp("bench") / "model"
    save_sparse(folder, "bert", num_hidden_layers=1)
    (made,) = prepare(load_models([str(folder)], needs_tokenizer=True), OPTIONS, toy_task())
    return made


@pytest.fixture(scope="module")
def found(prepared: PreparedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[Side, Place | UserError]:
    """Where every side is loaded from."""
    return places(prepared.source, OPTIONS.sides, toy_task(), tmp_path_factory.mktemp("places"))


def outputs(prepared: PreparedModel, side: Side, place: Place | UserError) -> tuple[list[list[float]], str | None]:
    """(logits of a side for the texts of the task, or the grid where there is none; its note)."""
    assert isinstance(place, Place), place
    runner = load(side.engine, side.precision, str(place.folder), 1, Meter())
    workloads = [w for w in prepared.workloads if w.length is None or prepared.texts is None]
    rows = []
    for workload in workloads:
        for batch in workload.batches:
            plain = {name: tensor.tolist() for name, tensor in batch.items()}
            rows += runner.logits(runner.compute(runner.prepare(plain)))
    assert len(rows) == sum(workload.batch * len(workload.batches) for workload in workloads)
    return rows, runner.note


@pytest.fixture(scope="module")
def expected(prepared: PreparedModel, found: dict[Side, Place | UserError]) -> list[list[float]]:
    """What torch computes in single precision."""
    return outputs(prepared, REFERENCE, found[REFERENCE])[0]


@pytest.mark.parametrize("side", OPTIONS.sides, ids=str)
def test_a_side_computes_what_torch_computes(
    side: Side, prepared: PreparedModel, found: dict[Side, Place | UserError], expected: list[list[float]]
) -> None:
    rows, note = outputs(prepared, side, found[side])
    assert relative_error(rows, expected) < LIMITS[side.precision]
    if side.precision != "fp32" and side.engine != "hydraprune":
        assert rows != expected
    if side.engine == "hydraprune":
        assert note is not None
        assert "of the weights are zero" in note
    if side == Side("openvino", "fp32"):
        assert note == "INFERENCE_PRECISION_HINT=float32"


def test_workloads_are_the_grid_and_then_the_task(prepared: PreparedModel) -> None:
    names = [workload.name for workload in prepared.workloads]
    assert names[:4] == ["batch 1, 5 tokens", "batch 1, 24 tokens", "batch 3, 5 tokens", "batch 3, 24 tokens"]
    assert names[4:] == ["batch 1, toy", "batch 3, toy"]
    for workload in prepared.workloads:
        for batch in workload.batches:
            assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}
            ids, mask = batch["input_ids"], batch["attention_mask"]
            assert len(ids) == workload.batch
            # Only texts of a task are padded, and each batch to its longest text.
            assert bool((mask.sum(-1) == ids.shape[1]).any())
            assert bool(((ids == 0) == (mask == 0)).all())
    assert len({batch["input_ids"].shape[1] for batch in prepared.workloads[4].batches}) > 1


def test_outputs_are_scored_in_the_order_of_the_labels(tmp_path: Path) -> None:
    """A perfect oracle has accuracy 1, also where the model's labels are in another order."""
    model = save_sparse(tmp_path / "model", "bert", num_hidden_layers=1)
    model.config.id2label = {0: "Positive", 1: "Negative"}  # type: ignore[union-attr]
    model.config.save_pretrained(tmp_path / "model")  # type: ignore[union-attr]
    (made,) = prepare(load_models([str(tmp_path / "model")], True), OPTIONS, toy_task())
    assert made.texts is not None
    labels = [int(label) for batch in made.texts.evaluation for label in batch.labels]
    assert made.texts.scores([[float(label == 1), float(label == 0)] for label in labels]) == {"accuracy": 1.0}
    assert made.texts.scores([[float(label == 0), float(label == 1)] for label in labels]) == {"accuracy": 0.0}


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "mpnet"])
def test_inputs_are_those_that_the_family_has(kind: str) -> None:
    assert bench_inputs(small_model(kind, **({"type_vocab_size": 1} if kind == "roberta" else {}))) == [
        "input_ids",
        "attention_mask",
    ]


def test_a_subset_is_spread_over_all_examples() -> None:
    examples = toy_task(10).examples
    assert list(subset(examples, 5).texts) == list(examples.texts)[::2]
    assert subset(examples, 10) is examples


def test_a_compact_folder_is_measured_like_any_other(tmp_path: Path) -> None:
    model = save_sparse(tmp_path / "model", "bert", num_hidden_layers=1)
    folder = tmp_path / "compact"
    folder.mkdir()
    for file in (tmp_path / "model").glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    save_compact(model, folder)
    (made,) = prepare(load_models([str(folder)], False), BenchOptions(batches=(2,), lengths=(7,)), None)
    sides = [REFERENCE, Side("hydraprune", "fp32")]
    found = places(made.source, sides, None, tmp_path)
    rows = []
    for side in sides:
        place = found[side]
        assert isinstance(place, Place)
        assert place.disk_bytes == (folder / "compact.safetensors").stat().st_size
        rows.append(outputs(made, side, place)[0])
    assert relative_error(rows[1], rows[0]) < 1e-5


def test_an_engine_that_is_not_installed_leaves_the_others(
    prepared: PreparedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad_input: None
) -> None:
    from hydraprune.deploy import engines

    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "onnxruntime" else object())
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    sides = [Side("onnxruntime", "fp32"), Side("openvino", "int8"), REFERENCE]
    found = places(prepared.source, sides, None, tmp_path)
    assert str(found[sides[0]]) == "the package onnxruntime is not installed; pip install 'hydraprune[onnx]'"
    assert str(found[sides[1]]).startswith("is calibrated on the texts of a task")
    assert isinstance(found[sides[2]], Place)


def test_outputs_that_are_not_finite_are_refused(tmp_path: Path, bad_input: None) -> None:
    model = save_sparse(tmp_path / "model", "bert", num_hidden_layers=1)
    model.classifier.weight.data.fill_(1e38)  # type: ignore[union-attr, operator]
    model.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    runner = load("torch", "fp32", str(tmp_path / "model"), 1, Meter())
    with pytest.raises(UserError, match="not finite"):
        runner.logits(torch.tensor([[float("nan"), 1.0]]))


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (["no-such/model"], "not in the local cache"),
        (["./missing"], "no such file or folder"),
        (["model", "./model"], "is given twice"),
        (["language"], "is no classifier"),
        ([], "give at least one model"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    paths: Sequence[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad_input: None
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("model"))
    from transformers import BertForMaskedLM

    BertForMaskedLM(small_model("bert").config).save_pretrained("language")
    with pytest.raises(UserError, match=named):
        load_models(paths, False)


def test_lengths_and_tasks_that_do_not_fit_are_refused(tmp_path: Path, bad_input: None) -> None:
    save_tiny(tmp_path / "runs" / "a", max_positions=40)
    save_tiny(tmp_path / "runs" / "b", max_positions=30)
    models = load_models([str(tmp_path / "runs" / name) for name in ("a", "b")], True)
    assert [model.label for model in models] == ["a", "b"]
    with pytest.raises(UserError, match=r"--length 33: the model has 30 positions"):
        prepare(models, BenchOptions(lengths=(8, 33)), None)
    # Those that nobody typed are cut to what every model reads.
    assert [w.length for w in prepare(models, BenchOptions(batches=(1,)), None)[0].workloads] == [30]
    from dataclasses import replace

    from hydraprune.data.examples import Labels

    task = replace(toy_task(), labels=Labels(("a", "b", "c")))
    with pytest.raises(UserError, match=r"MODEL=.*/a: has 2 labels and task toy 3"):
        prepare(models, BenchOptions(lengths=(8,)), task)


def test_weights_are_those_that_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "pytorch_model.bin").write_bytes(b"123")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert weights_bytes(tmp_path) == 5
    (tmp_path / "model.safetensors").unlink()
    assert weights_bytes(tmp_path) == 3
