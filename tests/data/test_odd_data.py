"""Files that look odd and work, limits of memory and disk, and texts of which a tokenizer keeps nothing."""

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
from pyarrow import parquet
from test_bad_data import CSV, JSON, LABELS, ROWS, TABLE, TEXTS, lines, loaded, make, table
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2Tokenizer

from hydraprune.data.batches import Batches
from hydraprune.data.encoding import encode
from hydraprune.data.examples import SUBSET_SEED, Examples
from hydraprune.data.readers import memory_limits as limits
from hydraprune.data.readers.files import file_at
from hydraprune.data.tasks import HubTask
from hydraprune.errors import UserError

Usage = namedtuple("Usage", "total used free")
LONG = "word " * 20_000
# name -> (the file's ending, its content, its texts and names of classes if other than those of the csv)
GOOD: dict[str, tuple[str, str | bytes | Callable[[Path], Any], list[str] | None, tuple[str, ...] | None]] = {
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
    "true and false": ("jsonl", lines([{**r, "label": bool(r["label"])} for r in ROWS]), None, None),
    "numbers with a point": ("csv", CSV.replace(",1\n", ",1.0\n"), None, None),
    "packed texts": ("parquet", table(text=pa.array(TEXTS).dictionary_encode()), None, None),
    "large texts": ("parquet", table(text=pa.array(TEXTS, pa.large_string())), None, None),
    "names of classes": ("csv", CSV.replace(",1\n", ",ham\n").replace(",0\n", ",spam\n"), None, ("ham", "spam")),
    "NA and nan": ("csv", "text,label\n" + "NA,nan\nnull,NA\n" * 20, ["NA", "null"] * 20, ("NA", "nan")),
    "quotes": ("csv", 'text,label\n"a ""b"", c\nd",0\ne,1\n', ['a "b", c\nd', "e"], None),
    "a long line": ("csv", f"text,label\n{LONG},0\nb,1\n", [LONG, "b"], None),
    "a long line, json": ("jsonl", lines([{"text": LONG, "label": 0}, {"text": "b", "label": 1}]), [LONG, "b"], None),
    "other scripts": (
        "csv",
        "text,label\n😀 שלום,0\n\u0645\u0631\u062d\u0628\u0627,1\n",
        ["😀 שלום", "\u0645\u0631\u062d\u0628\u0627"],
        None,
    ),
    "an escaped NUL": ("jsonl", '{"text":"a\\u0000","label":0}\n{"text":"b","label":1}', ["a\0", "b"], None),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_file_simply_works(name: str, tmp_path: Path) -> None:
    ending, content, texts, names = GOOD[name]
    path = str(make(tmp_path / f"a.{ending}", content))
    data = loaded(Path(path), validation_path=path)
    assert [text for (text,) in data.train.texts] == (TEXTS if texts is None else texts)
    assert data.labels.names == (names or ("0", "1"))
    if texts is None and names is None:
        assert list(data.train.labels) == LABELS


def test_a_link_to_a_file_is_the_file(tmp_path: Path) -> None:
    make(tmp_path / "real.csv", CSV)
    (tmp_path / "a.csv").symlink_to("real.csv")
    assert len(loaded(tmp_path / "a.csv").train) == 30


def test_what_is_likely_a_mistake_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make(tmp_path / "a.csv", CSV.replace("a sentence 3,", " ,"))
    other = make(tmp_path / "b.csv", "text,label\na,new\n")
    with caplog.at_level(logging.WARNING):
        loaded(path, validation_path=str(path))
        loaded(path, validation_path=str(other))
    said = caplog.text
    assert "1 of 40 texts of the file are empty, the first in row 4" in said
    assert "100 % of validation are among the training examples" in said
    assert "classes that no training example has (new)" in said
    assert "every example of validation is of one class only (new)" in said


def test_a_large_file_is_drawn_from_as_ever(tmp_path: Path) -> None:
    """The rows stay on the disk; which of them are drawn must not depend on that."""
    path = make(tmp_path / "a.csv", CSV)
    whole = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    expected = whole.train_test_split(test_size=10, seed=SUBSET_SEED)
    drawn = expected["train"].shuffle(seed=SUBSET_SEED).select(range(7))
    data = loaded(path, max_train_examples=7)
    assert data.train.texts == [(text,) for text in drawn["text"]]
    assert data.evaluations["validation"].labels == list(expected["test"]["label"])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_tells_its_volume_before_it_is_read(ending: str, tmp_path: Path) -> None:
    rows = [{"text": f"{i:04d} " + "word " * 30, "label": i % 2} for i in range(20_000)]
    whole = datasets.Dataset.from_list(rows)
    path = str(tmp_path / f"a.{ending}")
    {"csv": whole.to_csv, "jsonl": whole.to_json, "parquet": whole.to_parquet}[ending](path)
    volume = file_at("task.path", path).estimated(["text"])
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
def test_what_does_not_fit_into_memory_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, content, keys, said = LIMITS[name]
    path = make(tmp_path / ("a.json" if content.startswith("[") else "a.csv"), content)
    monkeypatch.setattr(limits, "available_memory", lambda: left)
    # Nothing may have been unpacked by then.
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UserError) as refused:
        loaded(path, **keys)
    assert all(part in str(refused.value) for part in said), refused.value


def test_a_part_of_a_file_above_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.csv", CSV)
    monkeypatch.setattr(limits, "available_memory", lambda: 7000)
    data = loaded(path, validation_path=str(make(tmp_path / "b.csv", "text,label\na,0\nb,1\n")), max_train_examples=3)
    assert len(data.train) == 3


@pytest.mark.usefixtures("bad_input")
def test_what_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: Usage(1, 1, 9))
    with pytest.raises(UserError, match=r"task\.path=.*are unpacked in .* MiB are free; set the .* TMPDIR"):
        loaded(make(tmp_path / "a.csv", CSV))


def folder(place: Path, **splits: dict[str, Any]) -> Path:
    """A local folder in the hub's layout."""
    (place / "sst2").mkdir(parents=True)
    for split, columns in splits.items():
        parquet.write_table(pa.table(columns), place / "sst2" / f"{split}.parquet")
    named = "".join(f"  - split: {split}\n    path: sst2/{split}.parquet\n" for split in splits)
    (place / "README.md").write_text(f"---\nconfigs:\n- config_name: sst2\n  data_files:\n{named}---\n")
    return place


def both(place: Path) -> Path:
    return folder(place, train=TABLE, validation=TABLE)


def cut(place: Path) -> Path:
    path = both(place) / "sst2" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    return place


def without(place: Path, name: str) -> Path:
    (both(place) / name).unlink()
    return place


def one_split(place: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(place)
    return place


FOLDERS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "not there": (lambda p: None, ("no such file or folder",)),
    "a file": (lambda p: p.write_text(CSV), ("is no folder", "task=file task.path=")),
    "a broken link": (lambda p: p.symlink_to("/no/such"), ("is a link to /no/such", "mend")),
    "nothing in it": (Path.mkdir, ("holds no data files", ".parquet")),
    "no validation": (lambda p: folder(p, train=TABLE), ("has no split validation", "train")),
    "a file is missing": (lambda p: without(p, "sst2/validation.parquet"), ("README.md names splits", "no files")),
    "another subset": (lambda p: without(p, "README.md"), ("task.subset=sst2", "task.subset=null")),
    "cut off": (cut, ("sst2/train.parquet: is cut off",)),
    "one split only": (one_split, ("save_to_disk", "DatasetDict")),
    "a script": (lambda p: (both(p) / "folder.py").write_text("") or (p / "README.md").unlink(), ("a script", "never")),
    "no label column": (
        lambda p: folder(p, train={"text": TABLE["text"]}, validation={"text": TABLE["text"]}),
        ("task.label=label", "it has text"),
    ),
    "hidden labels": (
        lambda p: folder(p, train=TABLE, validation={**TABLE, "label": pa.array([-1] * 40)}),
        ("-1 in row 1 of split validation", "not public"),
    ),
    "null text": (
        lambda p: folder(p, train={**TABLE, "text": pa.array([None, *TEXTS[1:]])}, validation=TABLE),
        ("task.text=text", "row 1 of split train has no text"),
    ),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    build, said = FOLDERS[name]
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
    assert all(part in line for part in said), line


def test_a_text_of_which_nothing_is_kept_does_not_stop_a_batch() -> None:
    """GPT-2's tokenizer adds nothing of its own, so an empty text has no tokens at all."""
    vocabulary = {"<|endoftext|>": 0, "a": 1, "b": 2}
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>")
    model = GPT2ForSequenceClassification(GPT2Config(vocab_size=3, n_embd=8, n_layer=1, n_head=1, pad_token_id=0))
    for texts in ([("ab",), ("",), ("a",)], [("",), ("",)]):
        encoded = encode(tokenizer, Examples(texts, [0.0] * len(texts)), 8, False)
        assert encoded.lengths.min() == 1
        (batch,) = Batches(encoded, 4).epoch()
        assert torch.isfinite(model(**batch.inputs).logits).all()
