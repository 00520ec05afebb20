"""Tagging tasks: entity metrics against seqeval, tags of words and tokens, data files, and runs from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from data_helpers import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st

from hydraprune.data import toy
from hydraprune.data.batches import Batches
from hydraprune.data.encoding import encode, encode_once
from hydraprune.data.entities import entities, entity_f1, entity_precision, entity_recall, tag_accuracy
from hydraprune.data.examples import Examples
from hydraprune.data.labels import IGNORED
from hydraprune.data.tag_labels import Tags, needs_space
from hydraprune.data.tagging import TagTask, ToyTagTask
from hydraprune.errors import UserError
from hydraprune.models.tiny import TinyModel
from hydraprune.utils.cache import Cache

CASES = json.loads((Path(__file__).parent / "seqeval_scores.json").read_text())["cases"]
TINY = TinyModel("tiny", 32, 1, 2, 32)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_metrics_are_those_of_seqeval(case: int) -> None:
    row = CASES[case]
    given = row["predictions"], row["references"]
    assert entity_f1(*given) == pytest.approx(row["f1"], abs=1e-12)
    assert entity_precision(*given) == pytest.approx(row["precision"], abs=1e-12)
    assert entity_recall(*given) == pytest.approx(row["recall"], abs=1e-12)
    assert tag_accuracy(*given) == pytest.approx(row["accuracy"], abs=1e-12)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-A I-A O B-A", {("A", 0, 1), ("A", 3, 3)}),
        ("I-A I-A B-A I-B", {("A", 0, 1), ("A", 2, 2), ("B", 3, 3)}),
        ("B-A E-A S-B S-B", {("A", 0, 1), ("B", 2, 2), ("B", 3, 3)}),
        ("B-A L-A U-B U-B", {("A", 0, 1), ("B", 2, 2), ("B", 3, 3)}),
        ("PER PER O", {("PER", 0, 1)}),
    ],
)
def test_entities(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == expected


@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), max_size=12))
@settings(deadline=None)
def test_entities_cover_the_tagged_words_once(tags: list[str]) -> None:
    covered = [place for _, first, last in entities(tags) for place in range(first, last + 1)]
    assert sorted(covered) == [place for place, tag in enumerate(tags) if tag != "O"]


# Tags of tokens -----------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["the", "plot", "good", "unheardof", "x", "is"]), min_size=1, max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=5), st.integers(4, 20))
@settings(max_examples=40, deadline=None)
def test_the_first_token_of_a_word_carries_its_tag(rows: list[list[str]], max_length: int) -> None:
    head = Tags(tuple(str(number) for number in range(64)))
    examples = Examples([tuple(row) for row in rows], [[hash(word) % 60 for word in row] for row in rows])
    tokenizer = TINY.tokenizer()
    data = encode(tokenizer, examples, max_length, head)
    batch = Batches(data, len(rows)).batch(torch.arange(len(rows)))
    assert batch.labels.shape == batch.inputs["input_ids"].shape
    for row, words in enumerate(rows):
        found = [int(target) for target in batch.labels[row] if target != IGNORED]
        kept = [hash(word) % 60 for word in words]
        assert found == kept[: len(found)]
        spelled = tokenizer(words, is_split_into_words=True)["input_ids"]
        assert len(found) == len(words) or len(spelled) > max_length
    logits = torch.nn.functional.one_hot(batch.labels.clamp(min=0), head.count).float()
    assert head.predictions(logits, batch.labels, batch.mask) == head.references(batch.labels)


def test_words_are_read_as_in_running_text() -> None:
    head = Tags(("O",))
    for tokenizer in (byte_level(), TINY.tokenizer()):
        words = ("not", "the", "good", "plot")
        data = encode(tokenizer, Examples([words], [[0] * 4]), 32, head)
        running = tokenizer(" not the good plot")["input_ids"]
        assert data.inputs["input_ids"].tolist() == running
    assert needs_space(byte_level())
    assert not needs_space(TINY.tokenizer())


def test_the_loss_is_the_mean_over_words() -> None:
    head = Tags(("O", "B-A"))
    logits, targets = torch.randn(2, 3, 2), torch.tensor([[IGNORED, 1, 0], [0, IGNORED, IGNORED]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    expected = torch.nn.functional.cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED])
    assert torch.allclose(head.loss(logits, targets, mask), expected)
    assert float(head.loss(logits, torch.full_like(targets, IGNORED), mask)) == 0.0
    assert float(head.soft_loss(logits, logits, 2.0, targets, mask)) == pytest.approx(0.0, abs=1e-6)
    other = logits.clone()
    other[targets == IGNORED] += 5 * torch.randn(3, 2)
    assert torch.allclose(head.soft_loss(logits, other, 2.0, targets, mask), torch.zeros(()), atol=1e-6)


def test_cached_tokens_know_where_words_begin(tmp_path: Path) -> None:
    cache, tokenizer, head = Cache(tmp_path, 1), TINY.tokenizer(), Tags(("O", "B"))
    for words in (("the", "plot"), ("the plot",)):
        examples = Examples([words], [[1] * len(words)])
        fresh = encode(tokenizer, examples, 16, head)
        for _ in range(2):
            kept = encode_once(tokenizer, examples, 16, head, cache)
            assert torch.equal(kept.labels, fresh.labels)
            assert kept.inputs.keys() == fresh.inputs.keys()


def test_toy_tags_follow_from_the_words() -> None:
    tags = toy.tags(["the", "plot", "was", "not", "very", "good", "but", "the", "cast", "is", "dull"])
    assert tags == ["O", "B-THING", "O", "B-BAD", "I-BAD", "I-BAD", "O", "O", "B-THING", "O", "B-BAD"]
    data = ToyTagTask("toy_tags", 50, 20, 0, 64).load()
    assert data.labels == Tags(toy.TAGS)
    assert all(len(words) == len(tags) for words, tags in zip(data.train.texts, data.train.labels, strict=True))


# Files --------------------------------------------------------------------------------------------

SENTENCES = [(["Ada", "met", "Bob"], ["B-PER", "O", "B-PER"]), (["Rome"], ["B-LOC"])] * 10


def task(path: str, **more: Any) -> TagTask:
    fields: dict[str, Any] = {"words": "tokens", "tags": "ner_tags", "labels": None, "metrics": ["f1"], **more}
    return TagTask(name="mine", path=path, max_length=16, **fields)


def write(path: Path, rows: list[tuple[list[str], list[Any]]]) -> str:
    path.write_text("".join(json.dumps({"tokens": words, "ner_tags": tags}) + "\n" for words, tags in rows))
    return str(path)


def test_json_parquet_and_word_per_line_files_hold_the_same(tmp_path: Path) -> None:
    lines = "\n\n".join("\n".join(f"{w} x {t}" for w, t in zip(*row, strict=True)) for row in SENTENCES)
    (tmp_path / "a.conll").write_text(f"-DOCSTART- -X- O\n\n{lines}\n")
    rows = datasets.Dataset.from_dict({"tokens": [r[0] for r in SENTENCES], "ner_tags": [r[1] for r in SENTENCES]})
    rows.to_parquet(str(tmp_path / "a.parquet"))
    loaded = [
        task(path).load()
        for path in (
            write(tmp_path / "a.jsonl", SENTENCES),
            str(tmp_path / "a.parquet"),
            str(tmp_path / "a.conll"),
        )
    ]
    assert loaded[0].labels.names == ("O", "B-LOC", "B-PER")
    assert len(loaded[0].train) == 18
    for other in loaded[1:]:
        assert (other.train, other.evaluations) == (loaded[0].train, loaded[0].evaluations)


def test_a_folder_with_splits_and_names_of_its_own(tmp_path: Path) -> None:
    names = ["O", "B-PER", "B-LOC"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"tokens": [r[0] for r in SENTENCES], "ner_tags": [[names.index(t) for t in r[1]] for r in SENTENCES]}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "validation": made.select(range(4))}).save_to_disk(str(tmp_path / "set"))
    data = task(str(tmp_path / "set")).load()
    assert data.labels.names == tuple(names)
    assert (len(data.train), len(data.evaluations["validation"])) == (20, 4)
    assert data.train.labels[0] == [1, 0, 1]
    assert data.summary.splits["train"].classes == {"O": 10, "B-PER": 20, "B-LOC": 10}


@pytest.mark.parametrize(
    ("rows", "more", "expected"),
    [
        (
            [(["a", "b"], ["O"])],
            {},
            r"path=.*: row 1: 2 tokens and 1 ner_tags; give each word one tag",
        ),
        ([(["a"], ["O"]), (["b"], [7])], {"labels": ["O"]}, r"row 2: 7 is none of task\.labels \(O\)"),
        ([(["a"], [0]), (["b"], [1])], {}, r"task\.labels=null: column ner_tags holds numbers, and nothing"),
        (SENTENCES, {"tags": "tags"}, r"has no column tags; its columns: tokens, ner_tags"),
        (SENTENCES, {"labels": ["O", "O"]}, r"task\.labels=.*names a class twice"),
        (
            SENTENCES,
            {"metrics": ["matthews"]},
            r"metrics=matthews: is a metric of classes, and the task has tags",
        ),
        (SENTENCES, {"validation_path": "nowhere"}, r"task\.validation_path=nowhere: no such file"),
    ],
)
def test_mistakes_in_data_are_one_line(
    rows: list[tuple[list[str], list[Any]]], more: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=expected) as refused:
        task(write(tmp_path / "a.jsonl", rows * 5 if len(rows) < 5 else rows), **more).load()
    assert "\n" not in str(refused.value)


def test_comments_marks_and_number_signs_in_word_per_line_files(tmp_path: Path) -> None:
    lines = ["# sent_id = 1", "# O", "Ada B-PER", "", "# text = # x", "No O", "# O", "1 O", ""] * 6
    (tmp_path / "a.conll").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    data = task(str(tmp_path / "a.conll")).load()
    assert set(data.train.texts) == {("#", "Ada"), ("No", "#", "1")}


def test_numbers_mean_the_names_that_the_data_gives_them(tmp_path: Path) -> None:
    names = ["neg", "pos", "neu"]
    kind = datasets.Sequence(datasets.ClassLabel(names=names))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": kind})
    rows = {"tokens": [["a", "b"]] * 8, "ner_tags": [[0, 2]] * 8}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(str(tmp_path / "set"))
    data = task(str(tmp_path / "set"), labels=["pos", "neg", "neu"]).load()
    assert [data.labels.names[number] for number in data.train.labels[0]] == ["neg", "neu"]
    with pytest.raises(UserError, match=r"task\.validation_path=x: goes with a file"):
        task(str(tmp_path / "set"), validation_path="x").load()


def test_a_word_that_the_tokenizer_drops_keeps_its_place() -> None:
    head, words = Tags(("O", "B")), ("the", "\u200b", "plot", "\u00ad")
    data = encode(TINY.tokenizer(), Examples([words], [[0, 1, 0, 1]]), 32, head)
    batch = Batches(data, 1).batch(torch.tensor([0]))
    assert head.references(batch.labels) == [["O", "B", "O", "B"]]
    cut = encode(TINY.tokenizer(), Examples([words], [[0, 1, 0, 1]]), 4, head)
    assert cut.truncated == 1


def test_a_word_without_a_tag_and_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ada B-PER\nmet\n")
    with pytest.raises(UserError, match="line 2 holds one column"):
        task(str(tmp_path / "a.conll")).load()
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(UserError, match=r"its extension is \.xml; give a file of one of \.json"):
        task(str(tmp_path / "a.xml")).load()


@pytest.mark.usefixtures("bad_input")
def test_a_tag_of_null_is_named_by_its_row(tmp_path: Path) -> None:
    rows = [*SENTENCES[:4], (["Ada", "left"], [None, "O"])]
    with pytest.raises(UserError, match="row 5: ner_tags holds null for value 1 of 2"):
        task(write(tmp_path / "a.jsonl", rows)).load()  # type: ignore[arg-type]


def test_rows_without_words_are_trained_on_by_none_and_keep_their_place_in_predictions(tmp_path: Path) -> None:
    rows = [SENTENCES[0], ([], []), SENTENCES[1]]
    path = write(tmp_path / "a.jsonl", rows)
    data = task(path, validation_path=path).load()
    assert len(data.train) == 2
    assert list(data.evaluations["validation"].texts) == [("Ada", "met", "Bob"), (), ("Rome",)]
    found = task("other").read_texts(None, path)
    assert list(found.texts) == [("Ada", "met", "Bob"), (), ("Rome",)]


def test_word_per_line_files_are_read_without_their_tags(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ada B-PER\nmet O\n\nRome B-LOC\n")
    assert list(task("other").read_texts(None, str(tmp_path / "a.conll")).texts) == [("Ada", "met"), ("Rome",)]


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distill", ["hidden", "logits", "none"])
def test_a_run_tags_words(
    distill: str, train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = [word for word in small if not word.startswith("task=")]
    finished = train(*words, "task=toy_tags", f"distill={distill}", "pattern=mixed", "scheduler.frequency=2")
    assert finished.code == 0, finished.err
    (path,) = workplace.glob("outputs/toy_tags/tiny/mixed/*/report.json")
    report = json.loads(path.read_text())
    assert report["metric"] == "f1"
    assert report["pattern_ok"]
    config = json.loads((path.parent / "model" / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"]["1"] == "B-THING"
    assert "pipeline_tag: token-classification" in (path.parent / "model" / "README.md").read_text()
    if distill != "none":
        return
    given = [word for word in words if word.startswith(("task.", "cache."))]
    scored = hydraprune("eval", str(path.parent / "model"), "task=toy_tags", *given, "--predictions", "p.jsonl")
    assert scored.code == 0, scored.err
    assert f"f1  {report['final']['f1']:.4f}" in scored.out
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert len(first["words"]) == len(first["label"]) == len(first["prediction"])
    # Rows without words, and words beyond the longest example.
    rows = [(["good"], ["O"]), ([], []), (["bad"] * 200, ["O"] * 200)]
    file = write(workplace / "new.jsonl", rows)
    tags = ("task=tags", f"task.path={file}", "task.max_length=64")
    predicted = hydraprune("predict", str(path.parent / "model"), *tags, "--file", file, "--out", "new-out.jsonl")
    assert predicted.code == 0, predicted.err
    assert "1 examples are longer than task.max_length" in predicted.out + predicted.err
    lines = [json.loads(line) for line in Path("new-out.jsonl").read_text().splitlines()]
    assert [line["example"] for line in lines] == [0, 1, 2]
    assert [len(line["prediction"]) for line in lines] == [1, 0, 200]
    assert lines[2]["prediction"][-1] is None


def test_a_model_with_another_head_is_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = [word for word in small if not word.startswith(("task=", "scheduler.", "dense."))]
    trained = train(*words, "task=toy_tags", "pattern=dense")
    assert trained.code == 0, trained.err
    (model,) = workplace.glob("outputs/toy_tags/tiny/dense/*/model")
    refused = train(*small, f"dense.source={model}")
    assert refused.code == 2
    assert "has a head for token classification, and task toy needs one for sequence classification" in refused.err
