"""Multi-label tasks: targets and loss against transformers, metrics against their definition, files, and a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from hydraprune.data.label_sets import LabelSetTask
from hydraprune.data.labels import LabelSets
from hydraprune.data.metrics import metric
from hydraprune.errors import UserError

HEAD = LabelSets(("a", "b", "c"))
# Sets of classes do not depend on which tokens are real.
NO_MASK = torch.ones(0)


def test_the_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(**sizes, vocab_size=20, num_labels=3, problem_type="multi_label_classification")
    model = BertForSequenceClassification(config).eval()
    targets = HEAD.targets([[0, 2], [], [1]], {}, torch.arange(4))
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    outputs = model(input_ids=torch.randint(20, (3, 5)), labels=targets)
    assert torch.allclose(HEAD.loss(outputs.logits, targets, NO_MASK), outputs.loss)


def test_the_soft_loss_is_the_divergence_of_each_class() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(4, 3), torch.randn(4, 3)
    p, q = torch.sigmoid(theirs / 2), torch.sigmoid(ours / 2)
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
    assert torch.allclose(HEAD.soft_loss(ours, theirs, 2.0, ours, NO_MASK), expected, atol=1e-6)
    assert float(HEAD.soft_loss(ours, ours, 2.0, ours, NO_MASK)) == pytest.approx(0.0, abs=1e-6)


SETS = st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=6, max_size=6)


@given(SETS, SETS)
@settings(max_examples=30, deadline=None)
def test_metrics_follow_their_definition(predictions: list[list[int]], references: list[list[int]]) -> None:
    names = ("f1_micro", "f1_macro", "f1_samples", "subset_accuracy")
    found = metric(names, HEAD).compute(predictions=predictions, references=references)

    def f1(pairs: list[tuple[int, int]]) -> float:
        both, either = sum(p and r for p, r in pairs), sum(p + r for p, r in pairs)
        return 2 * both / either if either else 0.0

    rows = [list(zip(p, r, strict=True)) for p, r in zip(predictions, references, strict=True)]
    columns = [[row[place] for row in rows] for place in range(3)]
    assert found["f1_micro"] == pytest.approx(f1([pair for row in rows for pair in row]))
    assert found["f1_macro"] == pytest.approx(sum(map(f1, columns)) / 3)
    assert found["f1_samples"] == pytest.approx(sum(map(f1, rows)) / 6)
    assert found["subset_accuracy"] == pytest.approx(
        sum(p == r for p, r in zip(predictions, references, strict=True)) / 6
    )


def task(path: Path, **more: Any) -> LabelSetTask:
    fields: dict[str, Any] = {"text": ["text"], "label": "labels", "labels": None, "metrics": ["f1_micro"], **more}
    return LabelSetTask(name="mine", path=str(path), max_length=16, **fields)


def test_a_column_of_lists_and_columns_of_0_and_1_are_the_same(tmp_path: Path) -> None:
    rows = [("one", ["b"]), ("two", []), ("three", ["a", "b"]), ("4", ["a"])] * 5
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    table = [f"{text},{int('a' in labels)},{int('b' in labels)}" for text, labels in rows]
    (tmp_path / "a.csv").write_text("\n".join(["text,a,b", *table]))
    one = task(tmp_path / "a.jsonl").load()
    other = task(tmp_path / "a.csv", label=["a", "b"]).load()
    assert one.labels == other.labels == LabelSets(("a", "b"))
    assert (one.train, one.evaluations) == (other.train, other.evaluations)
    assert ("4",) in one.train.texts
    assert one.summary.splits["train"].classes == other.summary.splits["train"].classes


@pytest.mark.parametrize(
    ("row", "more", "expected"),
    [
        ({"text": "x", "labels": "a"}, {}, r"row 1: labels holds 'a', no list; name several columns"),
        ({"text": "x", "labels": ["z"]}, {"labels": ["a", "b"]}, r"'z' is none of task\.labels \(a, b\)"),
        ({"text": "x", "labels": [3]}, {"labels": ["a", "b"]}, r"3 is none of task\.labels"),
        ({"text": 5, "labels": ["a"]}, {}, r"text holds 5, which is no text"),
        ({"text": "x", "a": 1, "b": 2}, {"label": ["a", "b"]}, r"b holds 2; give 0 or 1"),
        ({"text": "x", "a": 1}, {"label": ["a"]}, r"task\.label=\['a'\]: give two columns at least"),
        ({"text": "x", "a": 1, "b": 0}, {"label": ["a", "b"], "labels": ["c"]}, r"name the classes; leave it out"),
    ],
)
def test_mistakes_are_named_by_their_row(
    row: dict[str, Any], more: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(row)] * 12))
    with pytest.raises(UserError, match=expected):
        task(tmp_path / "a.jsonl", **more).load()


@pytest.mark.parametrize("distill", ["hidden", "logits"])
def test_a_run_gives_several_labels(
    distill: str, train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = ["good", "bad", "plot", "cast"]
    rows = [
        {"text": " ".join(chosen), "labels": list(chosen)} for place in range(80) for chosen in [words[: place % 5]]
    ]
    Path("a.jsonl").write_text("\n".join(json.dumps({**row, "text": row["text"] or "the"}) for row in rows))
    own = [word for word in small if not word.startswith("task")]
    given = ["task=label_sets", "task.path=a.jsonl"]
    finished = train(*own, *given, "pattern=4x1", f"distill={distill}", "training.batch_size=8", "training.epochs=4")
    assert finished.code == 0, finished.err
    (path,) = workplace.glob("outputs/label_sets/tiny/4x1/*/report.json")
    report = json.loads(path.read_text())
    assert report["metric"] == "f1_micro"
    config = json.loads((path.parent / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    scored = hydraprune("eval", str(path.parent / "model"), *given, "--predictions", "p.jsonl")
    assert scored.code == 0, scored.err
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert isinstance(first["label"], list)
    assert isinstance(first["prediction"], list)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ([[0, 1, 0], [1, 0, 0]], "a class twice"),
        ([["a", "b", "a"], ["b"]], "a class twice"),
        ([[0.0, 1.0], [1.0, 0.0]], "which name no classes"),
        ([[True, False], [False, True]], "which name no classes"),
    ],
)
def test_lists_of_0_and_1_for_each_class_are_no_lists_of_classes(
    lists: list[list[Any]], reason: str, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": f"text {n}", "labels": found}) for n, found in enumerate(lists * 5)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=reason) as refused:
        task(tmp_path / "a.jsonl", labels=["a", "b", "c"]).load()
    assert "row 1" in str(refused.value)
    assert "task.label=[A,B]" in str(refused.value.cure)
