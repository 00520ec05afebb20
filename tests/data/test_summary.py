"""What is said about the data that was read: rows, classes, truncated texts, digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from data_helpers import CSV, ROWS, file_task, json_lines, write_file
from transformers import BertTokenizer, GPT2Tokenizer

from hydraprune.data.encoding import encode, encode_once
from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.labels import CLASSES
from hydraprune.data.tasks import ToyTask
from hydraprune.utils.cache import Cache


def test_rows_add_up_and_classes_are_counted(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", CSV)
    data = file_task(path, max_train_examples=7).load()
    train, validation = data.summary.splits["train"], data.summary.splits["validation"]
    assert (train.read, train.used) == (40, 7)
    assert train.left_out == {"set apart for evaluation": 10, "task.max_train_examples": 23}
    assert (validation.read, validation.used, validation.left_out) == (10, 10, {})
    assert sum(train.classes.values()) == 7
    assert list(train.classes) == ["0", "1"]
    assert train.truncated is None
    assert json.loads(json.dumps(data.summary.as_dict()))["splits"]["train"]["used"] == 7


def test_scores_have_a_range(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.jsonl", json_lines([{**row, "label": i / 2} for i, row in enumerate(ROWS)]))
    data = file_task(path, validation_path=str(path), regression=True, metrics=["pearson"]).load()
    assert data.summary.splits["train"].scores == (0, 19.5)
    assert data.summary.splits["train"].classes == {}


def test_files_have_the_digest_of_their_bytes(tmp_path: Path) -> None:
    path, other = write_file(tmp_path / "a.csv", CSV), write_file(tmp_path / "b.csv", CSV + "one more,1\n")
    task = file_task(path, validation_path=str(other))
    expected = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, other)}
    assert task.digests() == task.load().summary.digests == expected


def test_other_data_has_the_digest_of_its_examples() -> None:
    def digests(**more: Any) -> Any:
        keys = {"train_examples": 20, "evaluation_examples": 9, "data_seed": 0, "max_length": 9}
        return ToyTask("toy", **{**keys, **more})

    first = digests().load().summary
    assert first == digests().load().summary
    other = digests(train_examples=21).load().summary
    assert first.digests["validation"] == other.digests["validation"]
    assert first.digests["train"] != other.digests["train"]
    fewer = digests(max_train_examples=5).load().summary.splits["train"]
    assert (fewer.read, fewer.used) == (20, 5)


def test_a_task_of_the_user_has_a_summary_too() -> None:
    train, test = Examples([("a",), (" ",)], [1, 1]), Examples([("c",)], [0])
    data = TaskData(train, {"test": test}, Labels(("no", "yes")))
    assert data.summary.splits["train"].classes == {"no": 0, "yes": 2}
    assert data.summary.splits["train"].empty == 1
    swapped = TaskData(train, {"test": Examples([("c",)], [1])}, Labels(("no", "yes")))
    assert data.summary.digests["test"] != swapped.summary.digests["test"]


WORDS = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])}


@pytest.mark.parametrize("texts", [1, 2])
@pytest.mark.parametrize("most", [4, 7])
def test_truncated_texts_are_counted(texts: int, most: int, tmp_path: Path) -> None:
    tokenizer = BertTokenizer(vocab=WORDS)
    examples = Examples([("a " * n, "b")[:texts] for n in range(12)], [0] * 12)
    # [CLS] and [SEP]; two more for a second text.
    longer = sum(n + 2 * texts > most for n in range(12))
    assert encode(tokenizer, examples, most, CLASSES).truncated == longer
    for _ in range(2):
        assert encode_once(tokenizer, examples, most, CLASSES, Cache(tmp_path, 1)).truncated == longer


@pytest.mark.parametrize("place", [0.1, 0.7, 0.99])
def test_damaged_tokens_are_made_again(place: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other tokens would be trained on without a word, or end in an IndexError at every start."""
    tokenizer = BertTokenizer(vocab=WORDS)
    examples = Examples([("a b " * n,) for n in range(1, 40)], [0] * 39)
    first = encode(tokenizer, examples, 32, CLASSES)
    encode_once(tokenizer, examples, 32, CLASSES, Cache(tmp_path, 1))
    (file,) = Cache(tmp_path, 1).files()
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 4
    file.write_bytes(data)
    again = encode_once(tokenizer, examples, 32, CLASSES, Cache(tmp_path, 1))
    assert again.inputs["input_ids"].tolist() == first.inputs["input_ids"].tolist()
    assert again.offsets.tolist() == first.offsets.tolist()
    assert "computing it again" in caplog.text


def test_truncated_texts_are_counted_for_a_tokenizer_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = GPT2Tokenizer(vocab={"<|endoftext|>": 0, "a": 1}, merges=[], pad_token="<|endoftext|>")
    examples = Examples([("a" * n,) for n in range(9)], [0] * 9)
    expected = encode(tokenizer, examples, 5, CLASSES).truncated

    class Slow:
        pad_token_id = 0

        def __call__(self, *texts: Any, **options: Any) -> Any:
            tokens = tokenizer(*texts, **options)
            tokens._encodings = None
            return tokens

    assert encode(Slow(), examples, 5, CLASSES).truncated == expected == 3
