"""Unusual data that works, limits of memory and disk, bad folders, and texts without tokens."""

from __future__ import annotations

import json
import logging
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch
from data_helpers import (
    CSV,
    JSON,
    LABELS,
    ROWS,
    TABLE,
    TEXTS,
    Content,
    json_lines,
    load_checked,
    parquet_with,
    write_file,
)
from pyarrow import parquet
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2Tokenizer

from hydraprune.data.batches import Batches
from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples
from hydraprune.data.labels import CLASSES
from hydraprune.data.readers import memory_limits as limits
from hydraprune.data.readers.files import open_data_file
from hydraprune.data.readers.rows import SUBSET_SEED
from hydraprune.data.tasks import HubTask
from hydraprune.errors import UserError

Usage = namedtuple("Usage", "total used free")
LONG = "word " * 20_000
# name -> (suffix, content, texts and class names if they differ from those of the csv)
GOOD: dict[str, tuple[str, Content, list[str] | None, tuple[str, ...] | None]] = {
    "byte order mark": ("csv", CSV.encode("utf-8-sig"), None, None),
    "byte order mark, json": ("jsonl", JSON.encode("utf-8-sig"), None, None),
    "Windows line ends": ("csv", CSV.replace("\n", "\r\n"), None, None),
    "Windows line ends, json": ("jsonl", JSON.replace("\n", "\r\n"), None, None),
    "line ends of old Macs": ("csv", CSV.replace("\n", "\r"), None, None),
    "blank lines": ("jsonl", JSON.replace("\n", "\n\n"), None, None),
    "a blank line first": ("csv", "\n" + CSV, None, None),
    "a list": ("json", json.dumps(ROWS), None, None),
    "a list on many lines": ("json", " \n" + json.dumps(ROWS, indent=1), None, None),
    "capital letters": ("CSV", CSV, None, None),
    "true and false": ("jsonl", json_lines([{**r, "label": bool(r["label"])} for r in ROWS]), TEXTS, ("False", "True")),
    "numbers before a word": ("csv", "text,label\n" + "1,1\n2,0\n" * 6000 + "c,1\n", ["1", "2"] * 6000 + ["c"], None),
    "texts of digits": ("csv", "text,label\n0012,1\n13,0\n", ["0012", "13"], None),
    "dates": (
        "jsonl",
        json_lines([{**r, "text": "2020-01-01 00:00:00"} for r in ROWS]),
        ["2020-01-01 00:00:00"] * 40,
        None,
    ),
    "a huge number": ("csv", CSV + "x,99999999999999999999999\n", [*TEXTS, "x"], ("0", "1", "9" * 23)),
    "numbers with a point": ("csv", CSV.replace(",1\n", ",1.0\n"), None, None),
    "packed texts": ("parquet", parquet_with(text=pa.array(TEXTS).dictionary_encode()), None, None),
    "large texts": ("parquet", parquet_with(text=pa.array(TEXTS, pa.large_string())), None, None),
    "names of classes": ("csv", CSV.replace(",1\n", ",ham\n").replace(",0\n", ",spam\n"), None, ("ham", "spam")),
    "NA and nan": ("csv", "text,label\n" + "NA,nan\nnull,NA\n" * 20, ["NA", "null"] * 20, ("NA", "nan")),
    "quotes": ("csv", 'text,label\n"a ""b"", c\nd",0\ne,1\n', ['a "b", c\nd', "e"], None),
    "a long line": ("csv", f"text,label\n{LONG},0\nb,1\n", [LONG, "b"], None),
    "a long line, json": (
        "jsonl",
        json_lines([{"text": LONG, "label": 0}, {"text": "b", "label": 1}]),
        [LONG, "b"],
        None,
    ),
    "other scripts": (
        "csv",
        "text,label\n😀 שלום,0\n\u0645\u0631\u062d\u0628\u0627,1\n",
        ["😀 שלום", "\u0645\u0631\u062d\u0628\u0627"],
        None,
    ),
    "an escaped NUL": ("jsonl", '{"text":"a\\u0000","label":0}\n{"text":"b","label":1}', ["a\0", "b"], None),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_unusual_file_is_read(name: str, tmp_path: Path) -> None:
    ending, content, texts, names = GOOD[name]
    path = str(write_file(tmp_path / f"a.{ending}", content))
    data = load_checked(Path(path), validation_path=path)
    assert [text for (text,) in data.train.texts] == (TEXTS if texts is None else texts)
    assert data.labels.names == (names or ("0", "1"))
    if texts is None and names is None:
        assert list(data.train.labels) == LABELS


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    write_file(tmp_path / "real.csv", CSV)
    (tmp_path / "a.csv").symlink_to("real.csv")
    assert len(load_checked(tmp_path / "a.csv").train) == 30


def test_likely_mistakes_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_file(tmp_path / "a.csv", CSV.replace("a sentence 3,", " ,"))
    other = write_file(tmp_path / "b.csv", "text,label\na,new\n")
    with caplog.at_level(logging.WARNING):
        load_checked(path, validation_path=str(path))
        load_checked(path, validation_path=str(other))
    logged = caplog.text
    assert "1 of 40 texts of the file are empty, the first in row 4" in logged
    assert "100 % of validation are among the training examples: its score measures memorisation" in logged
    assert "classes that no training example has (new)" in logged
    assert "every example of validation is of one class only (new)" in logged


def test_the_subset_drawn_from_a_file_does_not_change(tmp_path: Path) -> None:
    """Rows that stay on the disk are drawn like rows in memory."""
    path = write_file(tmp_path / "a.csv", CSV)
    whole = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    expected = whole.train_test_split(test_size=10, seed=SUBSET_SEED)
    drawn = expected["train"].shuffle(seed=SUBSET_SEED).select(range(7))
    data = load_checked(path, max_train_examples=7)
    assert data.train.texts == [(text,) for text in drawn["text"]]
    assert data.evaluations["validation"].labels == list(expected["test"]["label"])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_size_of_a_file_is_estimated_before_it_is_read(ending: str, tmp_path: Path) -> None:
    rows = [{"text": f"{i:04d} " + "word " * 30, "label": i % 2} for i in range(20_000)]
    whole = datasets.Dataset.from_list(rows)
    path = str(tmp_path / f"a.{ending}")
    {"csv": whole.to_csv, "jsonl": whole.to_json, "parquet": whole.to_parquet}[ending](path)
    volume = open_data_file("task.path", path).estimate(["text"])
    assert volume is not None
    assert volume.rows == pytest.approx(20_000, rel=0.02)
    assert volume.text == pytest.approx(20_000 * 155, rel=0.05)


LIMITS: dict[str, tuple[int, str, dict[str, Any], tuple[str, ...]]] = {
    "more than memory": (5000, CSV, {}, ("40 examples take about", "are left", "task.max_train_examples=")),
    "a list above memory": (5000, json.dumps(ROWS), {}, ("read as a whole", "jq -c", "a.jsonl")),
    "a part above memory": (5000, CSV, {"max_train_examples": 35}, ("40 examples take about",)),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", LIMITS)
def test_data_that_does_not_fit_into_memory_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, content, keys, expected = LIMITS[name]
    path = write_file(tmp_path / ("a.json" if content.startswith("[") else "a.csv"), content)
    monkeypatch.setattr(limits, "available_memory", lambda: free)
    # Refused before anything is unpacked.
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the file was read"))
    with pytest.raises(UserError) as refused:
        load_checked(path, **keys)
    assert all(part in str(refused.value) for part in expected), refused.value


def test_a_subset_of_a_file_larger_than_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a.csv", CSV)
    monkeypatch.setattr(limits, "available_memory", lambda: 7000)
    data = load_checked(
        path, validation_path=str(write_file(tmp_path / "b.csv", "text,label\na,0\nb,1\n")), max_train_examples=3
    )
    assert len(data.train) == 3


@pytest.mark.usefixtures("bad_input")
def test_data_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: Usage(1, 1, 9))
    with pytest.raises(UserError, match=r"task\.path=.*are unpacked in .* MiB are free; set the .* TMPDIR"):
        load_checked(write_file(tmp_path / "a.csv", CSV))


def hub_folder(path: Path, **splits: dict[str, Any]) -> Path:
    """A local folder in the hub's layout."""
    (path / "sst2").mkdir(parents=True)
    for split, columns in splits.items():
        parquet.write_table(pa.table(columns), path / "sst2" / f"{split}.parquet")
    named = "".join(f"  - split: {split}\n    path: sst2/{split}.parquet\n" for split in splits)
    (path / "README.md").write_text(f"---\nconfigs:\n- config_name: sst2\n  data_files:\n{named}---\n")
    return path


def good_folder(path: Path) -> Path:
    return hub_folder(path, train=TABLE, validation=TABLE)


def truncated(path: Path) -> None:
    file = good_folder(path) / "sst2" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-20])


def without(path: Path, name: str) -> None:
    (good_folder(path) / name).unlink()


def with_script(path: Path) -> None:
    without(path, "README.md")
    (path / "folder.py").write_text("")


def one_split(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(path)


# name -> (makes the folder, what the line must contain)
FOLDERS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "not there": (lambda p: None, ("no such file or folder",)),
    "a file": (lambda p: p.write_text(CSV), ("is not a folder", "task=file task.path=")),
    "a broken link": (lambda p: p.symlink_to("/no/such"), ("is a link to /no/such", "repair the link")),
    "nothing in it": (Path.mkdir, ("holds no data files", ".parquet")),
    "no validation": (lambda p: hub_folder(p, train=TABLE), ("has no split validation", "train")),
    "a file is missing": (lambda p: without(p, "sst2/validation.parquet"), ("README.md names splits", "without files")),
    "another subset": (lambda p: without(p, "README.md"), ("task.subset=sst2", "task.subset=null")),
    "cut off": (truncated, ("sst2/train.parquet: is truncated",)),
    "one split only": (one_split, ("save_to_disk", "DatasetDict")),
    "a script": (with_script, ("by a script", "never run")),
    "no label column": (
        lambda p: hub_folder(p, train={"text": TABLE["text"]}, validation={"text": TABLE["text"]}),
        ("task.label=label", "it has text"),
    ),
    "hidden labels": (
        lambda p: hub_folder(p, train=TABLE, validation={**TABLE, "label": pa.array([-1] * 40)}),
        ("-1 in row 1 of split validation", "not public"),
    ),
    "null text": (
        lambda p: hub_folder(p, train={**TABLE, "text": pa.array([None, *TEXTS[1:]])}, validation=TABLE),
        ("task.text=text", "row 1 of split train has no text"),
    ),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    build, expected = FOLDERS[name]
    build(tmp_path / "folder")
    task = HubTask(
        "sst2", str(tmp_path / "folder"), ["text"], "label", ["a", "b"], ["accuracy"], "train", ["validation"], 64,
        subset="sst2",
    )  # fmt: skip
    with pytest.raises(UserError) as refused:
        task.load()
    line = str(refused.value)
    assert "task.path=" in line
    assert "\n" not in line
    assert all(part in line for part in expected), line


def test_a_text_without_tokens_does_not_break_a_batch() -> None:
    """GPT-2's tokenizer adds no special tokens, so an empty text has none at all."""
    vocabulary = {"<|endoftext|>": 0, "a": 1, "b": 2}
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>")
    model = GPT2ForSequenceClassification(GPT2Config(vocab_size=3, n_embd=8, n_layer=1, n_head=1, pad_token_id=0))
    for texts in ([("ab",), ("",), ("a",)], [("",), ("",)]):
        encoded = encode(tokenizer, Examples(texts, [0.0] * len(texts)), 8, CLASSES)
        assert encoded.lengths.min() == 1
        (batch,) = Batches(encoded, 4).epoch()
        assert torch.isfinite(model(**batch.inputs).logits).all()
