"""What a run says of its data, checkpoint and layers: in the log, in its report, and by `hydraprune check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import json_lines
from family_helpers import save_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from saved_run_helpers import report_of, run_folders

from hydraprune.data.summary import DataSummary, SplitSummary
from hydraprune.models.checkpoint_use import CheckpointUse
from hydraprune.runs.provenance import Provenance

Command = Callable[..., Any]
ROWS = [{"text": f"good {'food ' * (i % 5)}", "label": ["bad", "fine", "good"][min(2, i % 4)]} for i in range(80)]


def words_of(workplace: Path) -> list[str]:
    (workplace / "rows.jsonl").write_text(json_lines(ROWS))
    save_checkpoint(workplace / "mine", "mpnet")
    return [
        *("model.path=mine", "task=file", "task.path=rows.jsonl", "task.text=[text]", "task.label=label"),
        *("task.metrics=[accuracy]", "task.max_length=5", "task.max_train_examples=50", "distill=none"),
        *("pattern.layers.include=['attention']", "training.epochs=2", "scheduler.warmup=1", "scheduler.cooldown=1"),
        "dense.overrides=['training.epochs=1']",
    ]


def test_a_report_has_what_the_run_was_made_from(train: Command, workplace: Path) -> None:
    finished = train(*words_of(workplace))
    assert finished.code == 0, finished.err
    (dense,) = run_folders(workplace / "outputs", "dense")
    (sparse,) = run_folders(workplace / "outputs", "4x1")
    before, report = report_of(dense), report_of(sparse)

    train_split, validation = report["data"]["splits"]["train"], report["data"]["splits"]["validation"]
    assert train_split["read"] == 80 == train_split["used"] + sum(train_split["left_out"].values())
    assert train_split["used"] == 50
    assert train_split["left_out"]["set apart for evaluation"] == validation["used"]
    assert sum(train_split["classes"].values()) == 50
    assert list(train_split["classes"]) == ["bad", "fine", "good"]
    assert train_split["truncated"] > 0
    assert set(report["data"]["digests"]) == {"rows.jsonl"}

    # The head for three classes is new; the dense model that the sparse run starts from has it.
    assert all(name.startswith("classifier.") for name in before["checkpoint"]["new"])
    assert before["checkpoint"]["new"]
    assert report["checkpoint"]["new"] == []
    saved = load_file(sparse / "model" / "model.safetensors")
    assert before["checkpoint"]["used"] + len(before["checkpoint"]["new"]) == report["checkpoint"]["used"] == len(saved)

    assert before["coverage"] is None
    pruned = {name: weight for name, weight in saved.items() if "attention" in name and weight.dim() == 2}
    assert report["coverage"]["parameters"] == sum(
        weight.numel() for name, weight in pruned.items() if "relative" not in name
    )
    total = sum(weight.numel() for weight in saved.values())
    assert report["coverage"]["share"] == report["coverage"]["parameters"] / total
    assert sum(report["coverage"]["dense"].values()) + report["coverage"]["parameters"] == total

    log = (sparse / "train.log").read_text()
    for line in ("data     50 train", "weights  41 from the checkpoint", "pruned   8 weights"):
        assert line in log
    assert "examples are cut to task.max_length=5 tokens" in log
    assert "WARNING" in next(line for line in log.splitlines() if "are cut to" in line)


def test_check_says_the_same_and_trains_nothing(hydraprune: Command, train: Command, workplace: Path) -> None:
    words = words_of(workplace)
    before = sorted(workplace.rglob("*"))
    checked = hydraprune("check", *words)
    assert checked.code == 1, checked.err  # many texts are cut
    assert sorted(workplace.rglob("*")) == before
    for line in ("50 train", "3 classes", "from the checkpoint", "8 weights", "embedding", "new", "trained first"):
        assert line in checked.out
    assert "odd" in checked.out
    assert train(*words).code == 0
    finished = hydraprune("check", *words)
    assert finished.code == 0
    assert "finished" in finished.out
    assert hydraprune("check", *words, "task.label=nothing").code == 2


def test_check_of_a_run_without_oddities(hydraprune: Command, small: tuple[str, ...]) -> None:
    checked = hydraprune("check", *small, "pattern=2:4")
    assert checked.code == 0, checked.err
    assert "weights      random" in checked.out
    assert "2 classes (negative" in checked.out


COUNTS = st.integers(0, 10_000)


@given(used=st.integers(1, 10_000), truncated=COUNTS, multiline=COUNTS, empty=COUNTS)
def test_what_is_odd_is_named(used: int, truncated: int, multiline: int, empty: int) -> None:
    split = SplitSummary(used, used, classes={"a": used}, truncated=truncated, multiline=multiline, empty=empty)
    odd = Provenance(DataSummary({"train": split}), None, None, 128).oddities()
    assert any("cut to task.max_length=128" in line for line in odd) == (truncated > used / 10)
    assert any("span several lines" in line for line in odd) == (multiline > 0)
    assert any("empty text" in line for line in odd) == (empty > 0)
    assert not any("no example of" in line for line in odd)


def test_a_class_without_examples_and_unused_layers_are_odd() -> None:
    data = DataSummary({"train": SplitSummary(2, 2, classes={"a": 2, "b": 0})})
    use = CheckpointUse(3, unused=("encoder.layer.9.weight",), lost=("encoder.layer.9.weight",))
    odd = Provenance(data, use, None, 128).oddities()
    assert any("no example of b" in line for line in odd)
    assert any("encoder.layer.9.weight" in line for line in odd)
    assert Provenance(data, use, None, 128).as_dict()["checkpoint"]["unused"]["of_encoder"] == 1


def test_a_model_of_another_kind_than_declared_is_odd() -> None:
    data = DataSummary({"train": SplitSummary(2, 2)})
    for declared, count in ((None, 0), ("roberta", 0), ("bert", 1)):
        assert len(Provenance(data, None, None, 128, (declared, "roberta")).oddities()) == count


def test_a_report_without_these_fields_is_read(train: Command, workplace: Path, small: tuple[str, ...]) -> None:
    assert train(*small, "pattern=4x1").code == 0
    (folder,) = run_folders(workplace / "outputs", "4x1")
    older = {k: v for k, v in report_of(folder).items() if k not in ("inputs", "data", "checkpoint", "coverage")}
    (folder / "report.json").write_text(json.dumps(older))
    assert "Finished already" in train(*small, "pattern=4x1").out


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["seed=0,1"]])
def test_check_takes_one_run(words: list[str], hydraprune: Command, small: tuple[str, ...]) -> None:
    assert hydraprune("check", *small, *words).code == 2


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.parquet", "p.xlsx", "p.JSONL.txt"])
def test_predictions_are_json_lines(name: str, hydraprune: Command, workplace: Path) -> None:
    done = hydraprune("eval", "nowhere", "task=toy", "--predictions", name)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert f"--predictions={name}: predictions are written as JSON lines; name it p" in done.err
    assert not (workplace / name).exists()


def test_eval_writes_its_predictions(hydraprune: Command, train: Command, workplace: Path) -> None:
    words = words_of(workplace)
    assert train(*words).code == 0
    (folder,) = run_folders(workplace / "outputs", "4x1")
    task = [word for word in words if word.startswith("task")]
    done = hydraprune("eval", str(folder / "model"), *task, "--predictions", "predicted.jsonl")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (workplace / "predicted.jsonl").read_text().splitlines()]
    report = report_of(folder)
    assert len(rows) == report["data"]["splits"]["validation"]["used"]
    assert [row["example"] for row in rows] == list(range(len(rows)))
    assert set(rows[0]) == {"set", "example", "text", "label", "prediction"}
    assert {row["label"] for row in rows} <= {"bad", "fine", "good"}
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert right == report["final"]["accuracy"]
    assert f"accuracy  {right:.4f}" in done.out
