"""Multiple choice: rows of a question that stay together, data files, and runs from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import BertConfig, BertForMultipleChoice

from hydraprune.data.batches import Batches
from hydraprune.data.choice_labels import Choices
from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples
from hydraprune.data.multiple_choice import ChoiceTask
from hydraprune.data.toy_tasks import ToyChoiceTask
from hydraprune.errors import UserError
from hydraprune.models.tiny import TinyModel

TINY = TinyModel("tiny", 32, 1, 2, 32)
HEAD = Choices(choices=3)
TEXTS = st.lists(st.sampled_from(["good", "dull", "plot", "the"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), min_size=1, max_size=9), st.integers(1, 4), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_choices_of_a_question_stay_together(examples: list[Any], batch_size: int, grouping: int) -> None:
    data = encode(TINY.tokenizer(), Examples(examples, [0] * len(examples)), 32, HEAD)
    assert (len(data), data.groups) == (3 * len(examples), len(examples))
    for seed in (None, 3):
        batches = Batches(data, batch_size, seed, grouping)
        order = batches.order(1)
        assert len(order) == len(batches)
        assert all(len(rows) <= 3 * batch_size for rows in order)
        groups = torch.cat(order).view(-1, 3)
        assert torch.equal(groups, groups[:, :1] + torch.arange(3))
        assert sorted(groups[:, 0].tolist()) == list(range(0, len(data), 3))


def test_outputs_and_loss_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMultipleChoice(BertConfig(**sizes, vocab_size=20)).eval()
    ids, right = torch.randint(20, (2, 3, 5)), torch.tensor([2, 0])
    expected = model(input_ids=ids, labels=right)
    logits = HEAD.outputs(model, {"input_ids": ids.flatten(0, 1)})
    targets, mask = HEAD.targets([2, 0], {}, torch.arange(7)), torch.ones(6, 5, dtype=torch.bool)
    assert torch.allclose(logits.view(2, 3), expected.logits, atol=1e-6)
    assert torch.allclose(HEAD.loss(logits, targets, mask), expected.loss, atol=1e-6)
    assert HEAD.predictions(logits, targets, mask) == expected.logits.argmax(1).tolist()
    assert HEAD.references(targets) == [2, 0]
    other = torch.randn(6, 1)
    p, q = (torch.softmax(each.view(2, 3) / 2.0, 1) for each in (other, logits))
    assert torch.allclose(
        HEAD.soft_loss(logits, other, 2.0, targets, mask), F.kl_div(q.log(), p, reduction="batchmean")
    )


def task(path: Path | str, **more: Any) -> ChoiceTask:
    keys: dict[str, Any] = {
        "name": "multiple_choice", "path": str(path), "metrics": ["accuracy"], "max_length": 64, "text": ["question"],
        "start": None, "choices": "choices", "label": "label", "validation_share": 0.25,
    }  # fmt: skip
    return ChoiceTask(**{**keys, **more})


def rows(label: Any = 1, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"which {n}", "choices": ["good", "dull", "new"], "label": label, **more} for n in range(8)]


def written(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, found)))
    return path


@pytest.mark.parametrize("label", [1, "1", "B", " b "])
def test_numbers_and_letters(label: Any, tmp_path: Path) -> None:
    data = task(written(tmp_path / "a.jsonl", rows(label))).load()
    assert data.labels == HEAD
    assert set(data.train.labels) == {1}
    assert data.train.texts[0][1:] == ("good", "dull", "new")


def test_columns_and_starts_as_in_swag(tmp_path: Path) -> None:
    found = [{"sent1": "he came", "sent2": "then he", "ending0": "sat", "ending1": "fell", "label": 0}] * 8
    read = task(
        written(tmp_path / "a.jsonl", found), text=["sent1"], start="sent2", choices=["ending0", "ending1"]
    ).load()
    assert read.train.texts[0] == ("he came", "then he sat", "then he fell")


def test_a_list_inside_a_column_as_in_commonsense_qa(tmp_path: Path) -> None:
    nested = [{**row, "choices": {"label": ["A", "B"], "text": ["good", "dull"]}, "label": "A"} for row in rows()]
    sets = {name: datasets.Dataset.from_list(nested) for name in ("train", "validation")}
    datasets.DatasetDict(sets).save_to_disk(tmp_path / "set")
    read = task(tmp_path / "set", choices="choices.text").load()
    assert (read.train.texts[0], read.labels) == (("which 0", "good", "dull"), Choices(choices=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 3}, "row 1: label holds 3, none of its choices; give a number from 0 to 2, or one of A, B, C"),
        ({"label": "D"}, "none of its choices"),
        ({"label": None}, "none of its choices"),
        ({"choices": ["good"]}, "it has 1 choices, and the first row has"),
        ({"choices": "good"}, "choices holds no list of texts"),
        ({"question": 4}, "question holds 4, which is no text"),
    ],
)
def test_wrong_rows_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    found = rows()
    place = 1 if len(change.get("choices", "xx")) == 1 else 0
    found[place].update(change)
    with pytest.raises(UserError, match=message.replace("row 1", f"row {place + 1}")):
        task(written(tmp_path / "a.jsonl", found)).load()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"task\.choices=.*give two columns at least"):
        task("a.jsonl", choices=["ending0"])
    with pytest.raises(UserError, match=r"task\.text=\[\]: give at least one"):
        task("a.jsonl", text=[])


def test_a_single_choice_is_refused(tmp_path: Path) -> None:
    found = [{**row, "choices": ["good"], "label": 0} for row in rows()]
    with pytest.raises(UserError, match="one choice only, so there is nothing to choose; give at least two"):
        task(written(tmp_path / "a.jsonl", found)).load()


def test_numbers_from_1_get_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = [{**row, "label": 1 + place % 2} for place, row in enumerate(rows() * 4)]
    task(written(tmp_path / "a.jsonl", found)).load()
    assert "none of 24 questions has its first choice (0, A)" in caplog.text


def test_cut_questions_are_counted_once() -> None:
    long = ("plot " * 30, "good", "dull", "new")
    data = encode(TINY.tokenizer(), Examples([long, ("plot", "good", "dull", "new")], [0, 1]), 16, HEAD)
    assert data.truncated == 1


def test_toy_choices_have_one_right_sentence() -> None:
    data = ToyChoiceTask("toy_choices", 100, 20, 0, 64).load()
    assert data.labels == HEAD
    assert set(data.train.labels) == {0, 1, 2}


@pytest.mark.parametrize("distill", ["hidden", "logits", "none"])
def test_a_run_chooses(
    distill: str, train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = [word for word in small if not word.startswith("task=")]
    finished = train(*words, "task=toy_choices", f"distill={distill}", "scheduler.frequency=2")
    assert finished.code == 0, finished.err
    (path,) = workplace.glob("outputs/toy_choices/tiny/4x1/*/report.json")
    report = json.loads(path.read_text())
    assert (report["metric"], report["pattern_ok"]) == ("accuracy", True)
    model = path.parent / "model"
    assert json.loads((model / "config.json").read_text())["architectures"] == ["BertForMultipleChoice"]
    if distill != "none":
        return
    given = [word for word in words if word.startswith(("task.", "cache."))]
    scored = hydraprune("eval", str(model), "task=toy_choices", *given, "--predictions", "p.jsonl")
    assert f"accuracy  {report['final']['accuracy']:.4f}" in scored.out
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert len(first["choices"]) == 3
    Path("asked.jsonl").write_text(json.dumps({"question": "good", "choices": ["the plot is good", "it is dull"]}))
    predicted = hydraprune("predict", str(model), "task=multiple_choice", "--file", "asked.jsonl")
    assert predicted.code == 0, predicted.err
    assert json.loads(predicted.out)["prediction"] in (0, 1)
