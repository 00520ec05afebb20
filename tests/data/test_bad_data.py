"""Bad data files: each is refused in one line that names the key, the file, the place and a cure."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data_helpers import (
    CSV,
    JSON,
    LABELS,
    ROWS,
    TABLE,
    Content,
    json_lines,
    load_checked,
    parquet_of,
    parquet_with,
    write_file,
)

from hydraprune.errors import UserError

AB = {"labels": ["a", "b"]}
SCORES = {"regression": True, "metrics": ["pearson"]}


def every(**changed: Any) -> str:
    """The forty rows as json lines, with some values replaced in all of them."""
    return json_lines([{**row, **changed} for row in ROWS])


def flipped(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 255]) + data[41:]


def fifo(path: Path) -> None:
    os.mkfifo(path)


Expected = tuple[str, ...]
# name -> (suffix, content, keys of the task, what the line must contain)
BAD: dict[str, tuple[str, Content, dict[str, Any], Expected]] = {
    # the file itself
    "not there": ("csv", lambda path: None, {}, ("no such file", "exists")),
    "another ending": ("xls", CSV, {}, ("must end in one of .csv, .json, .jsonl, .parquet",)),
    "a folder": ("csv", Path.mkdir, {}, ("is a folder", "task=sst2 task.path=FOLDER")),
    "a pipe": ("csv", fifo, {}, ("is a pipe", "give a file on a disk")),
    "a device": ("csv", lambda path: path.symlink_to("/dev/zero"), {}, ("is a device", "give a file")),
    "a broken link": ("csv", lambda path: path.symlink_to("/no/such.csv"), {}, ("a link to /no/such.csv", "repair")),
    "a link to itself": ("csv", lambda path: path.symlink_to(path), {}, ("is a link to", "repair the link")),
    "empty": ("csv", "", {}, ("the file is empty", "at least one example")),
    "a blank line": ("csv", "\n", {}, ("the file is empty", "names the columns")),
    "a header only": ("csv", "text,label\n", {}, ("is empty", "at least one example")),
    "blank lines": ("jsonl", "\n\n", {}, ("the file is empty",)),
    "gzip": ("csv", gzip.compress(CSV.encode()), {}, ("compressed (gzip)", "gunzip")),
    "gzip by its name": ("csv.gz", gzip.compress(CSV.encode()), {}, ("compressed (gzip)", "gunzip")),
    "a spreadsheet": ("csv", b"PK\x03\x04" + bytes(range(99)), {}, ("a spreadsheet", "save it as csv")),
    # encodings
    "latin-1": ("csv", (CSV + "café,1\n").encode("latin-1"), {}, ("line 42", "0xe9", "'café,1'", "as UTF-8")),
    "latin-1 json": ("jsonl", (JSON + '{"text":"é"}').encode("latin-1"), {}, ("line 41", "WINDOWS-1252", "UTF-8")),
    "UTF-16": ("csv", CSV.encode("utf-16"), {}, ("is UTF-16 text", "iconv -f UTF-16 -t UTF-8 a.csv")),
    "UTF-16 unmarked": ("csv", CSV.encode("utf-16-le"), {}, ("is UTF-16LE text", "save it as UTF-8")),
    "UTF-16 json": ("jsonl", JSON.encode("utf-16"), {}, ("is UTF-16 text", "save it as UTF-8")),
    "UTF-16 big end": ("jsonl", JSON.encode("utf-16-be"), {}, ("is UTF-16BE text", "save it as UTF-8")),
    "UTF-32": ("csv", CSV.encode("utf-32"), {}, ("is UTF-32 text", "save it as UTF-8")),
    "NUL": ("csv", CSV + "a\0b,1\n", {}, ("line 42 has a NUL byte", "save it as UTF-8")),
    "half a surrogate": ("jsonl", JSON.encode() + b'{"text":"\xed\xa0\x80"}', {}, ("line 41", "half of a surrogate")),
    "half a surrogate, escaped": ("jsonl", JSON + '{"text":"\\ud800","label":1}', {}, ("line 41", "surrogate pair")),
    "a picture": ("csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), {}, ("line 1 is not UTF-8", "0x89")),
    # csv
    "ragged": ("csv", CSV + "a,b,1\n", {}, ("line 42 has 3 fields", "before it 2", "double quotes")),
    "ragged from the start": ("csv", "text,label\na,b,1\nc,d,0\n", {}, ("names 2 columns", "has 3", "double quotes")),
    "too short": ("csv", CSV + "a\n", {}, ("task.label=label", "'' in row 41", "not one of")),
    "semicolons": ("csv", CSV.replace(",", ";"), {}, ("semicolons ('text;label')", "save it with commas")),
    "tabs": ("csv", CSV.replace(",", "\t"), {}, ("separated by tabs", "commas")),
    "bars": ("csv", CSV.replace(",", "|"), {}, ("separated by vertical bars", "commas")),
    "single quotes": ("csv", CSV.replace("a sentence 3", "'a, b'"), {}, ("line 5 has 3 fields", "double quotes")),
    "an open quote": ("csv", CSV + '"a,1\nb,0\n', {}, ("row 41 is not closed", "close it")),
    "a column twice": ("csv", "text,text,label\na,b,1\n", {}, ("2 of its columns are called text", "rename")),
    "no header": ("csv", CSV.split("\n", 1)[1], {}, ("task.text=text", "no such column", "a sentence 0, 0")),
    "an empty header": ("csv", CSV.replace("text,label", ","), {}, ("no such column", "Unnamed")),
    "a space in the header": ("csv", CSV.replace("t,l", "t, l"), {}, ("task.label=label", "text, ' label'")),
    # json
    "a number": ("json", "5", {}, ("line 1 is not a whole json object ('5')", "a list of objects")),
    "null": ("json", "null", {}, ("line 1 is not a whole json object", "a list of objects")),
    "a number among objects": ("jsonl", JSON + "5\n", {}, ("line 41 is not a whole json object",)),
    "csv called json": ("json", CSV, {}, ("line 1 is not a whole json object ('text,label')",)),
    "cut off": ("jsonl", JSON + '{"text": "a", "lab', {}, ("line 41 is not a whole json object",)),
    "Python for json": ("jsonl", "\n".join(map(str, ROWS)), {}, ("line 1 is not json", "double quotes")),
    "a name twice": ("jsonl", JSON + '{"text":"a","label":1,"text":"b"}', {}, ("line 41", "twice")),
    "a list cut off": ("json", json.dumps(ROWS)[:-20], {}, ("not a whole json list", "list of objects")),
    "a list of words": ("json", '["a","b"]', {}, ("item 1 of its list is", "list of objects")),
    "one object": ("json", json.dumps({"data": ROWS}), {}, ("task.text=text", "it has data")),
    "one object on many lines": ("json", json.dumps({"data": ROWS}, indent=1), {}, ("line 1 is not a whole",)),
    "an endless line": ("jsonl", b'{"text": "' + b"x" * (65 << 20), {}, ("line 1 is longer than 64 MiB",)),
    # parquet
    "parquet cut off": ("parquet", parquet_with()[:-30], {}, ("is truncated", "write it again")),
    "parquet without its middle": (
        "parquet", parquet_with()[:300] + parquet_with()[-300:], {}, ("is damaged", "write it again")
    ),
    "parquet with a flipped bit": ("parquet", flipped(parquet_with()), {}, ("is damaged", "write it again")),
    "csv called parquet": ("parquet", CSV, {}, ("is not parquet",)),
    "a pointer": ("parquet", "version https://git-lfs.github.com/spec/v1\n", {}, ("git lfs pull",)),
    "parquet without rows": ("parquet", parquet_of(pa.table(TABLE).slice(0, 0)), {}, ("empty",)),
    "parquet of nulls": ("parquet", parquet_with(text=pa.nulls(40)), {}, ("task.text=text", "row 1", "no text (null)")),
    "parquet of null labels": ("parquet", parquet_with(label=pa.nulls(40)), {}, ("task.label=label", "neither")),
    "parquet of bytes": ("parquet", parquet_with(text=pa.array([b"a"] * 40)), {}, ("row 1", "bytes")),
    "parquet of odd bytes": (
        "parquet", parquet_with(text=pa.array([b"a"] * 9 + [b"\xff"] * 31).view("string")), {}, ("row 10", "UTF-8")
    ),
    "parquet with a column twice": (
        "parquet",
        parquet_of(pa.table([*TABLE.values(), TABLE["text"]], ["text", "label", "text"])),
        {},
        ("2 of its", "rename"),
    ),
    "parquet of times": (
        "parquet", parquet_with(label=pa.array(LABELS, "timestamp[s]")), {}, ("task.label=", "neither")
    ),
    # texts
    "no text column": ("jsonl", JSON, {"text": ["words"]}, ("task.text=words", "text, label")),
    "another spelling": ("csv", CSV.replace("text", "Text"), {}, ("task.text=text", "it has Text, label")),
    "null text": ("jsonl", JSON + '{"text":null,"label":1}', {}, ("row 41 of the file has no text (null)",)),
    "no text in a row": ("jsonl", JSON + '{"label":1}', {}, ("row 41 of the file has no text (null)",)),
    "a number for a text": ("jsonl", JSON + '{"text":5,"label":1}', {}, ("row 41", "a number (5)")),
    "an object for a text": ("jsonl", JSON + '{"text":{"a":1},"label":1}', {}, ("row 41", "an object")),
    "lists for texts": ("jsonl", every(text=["a", "b"]), {}, ("row 1", "a list", "texts only")),
    "empty texts only": ("jsonl", every(text=""), {}, ("task.text=text", "every text of the file is empty")),
    "whitespace only": ("jsonl", every(text=" \t\u00a0"), {}, ("every text of the file is empty",)),
    "three texts": ("jsonl", JSON, {"text": ["text"] * 3}, ("task.text=", "two")),
    # labels
    "no label column": ("jsonl", JSON, {"label": "target"}, ("task.label=target", "text, label")),
    "a label out of range": ("jsonl", JSON + '{"text":"x","label":7}', AB, ("7 in row 41", "a, b")),
    "a label of -1": ("jsonl", JSON + '{"text":"x","label":-1}', AB, ("-1 in row 41", "not public")),
    "a name not known": ("jsonl", JSON + '{"text":"x","label":"c"}', AB, ("'c' in row 41", "a, b")),
    "null label": ("jsonl", JSON + '{"text":"x","label":null}', {}, ("row 41 of the file has no label",)),
    "no label in a row": ("jsonl", JSON + '{"text":"x"}', {}, ("row 41 of the file has no label",)),
    "an empty label": ("jsonl", JSON + '{"text":"x","label":""}', {}, ("task.label=label", "not one of")),
    "NaN": ("jsonl", JSON + '{"text":"x","label":NaN}', {}, ("nan in row 41", "not one of")),
    "infinite": ("csv", CSV + "x,inf\n", {}, ("inf in row 41", "not one of")),
    "a fraction": ("csv", CSV + "x,0.5\n", {}, ("0.5 in row 41", "not one of")),
    "a huge json number": ("jsonl", JSON + '{"text":"x","label":99999999999999999999}', {}, ("row 41", "not one of")),
    "scores as classes": ("jsonl", every(label=0.5), {}, ("task.label=label", "task.regression=true")),
    "too many classes": (
        "jsonl", json_lines([{"text": "a", "label": i} for i in range(1001)]), {}, ("1001", "task.regression=true")
    ),
    "words for scores": ("jsonl", every(label="high"), SCORES, ("'high'", "number")),
    "infinite score": (
        "jsonl", JSON + '{"text":"x","label":Infinity}', SCORES, ("inf in row 41",)
    ),
    "one score only": ("jsonl", every(label=0.5), SCORES, ("score 0.5", "two")),
    "one class": ("jsonl", every(label=1), {}, ("one class only (1)", "at least two")),
    "one class of two": ("jsonl", every(label=1), AB, ("one class only (b)", "at least two")),
    "a class named twice": ("jsonl", JSON, {"labels": ["a", "a"]}, ("task.labels=", "twice")),
    "f1 of three": (
        "csv", "text,label\na,0\nb,1\nc,2\nd,2\n", {"metrics": ["f1"]}, ("task.metrics=f1", "f1_macro")
    ),
    # splits
    "a share that leaves nothing": ("jsonl", JSON, {"validation_share": 0.999}, ("task.validation_share=", "another")),
    "one example": ("csv", "text,label\na,1\n", {}, ("task.validation_share", "1 of 1", "task.validation_path")),
}  # fmt: skip
# The same for a validation file beside a good training file: name -> (content, keys, what the line must contain)
VALIDATION: dict[str, tuple[str, dict[str, Any], Expected]] = {
    "validation not there": ("", {}, ("task.validation_path=", "empty")),
    "validation of a header": ("text,label\n", {}, ("task.validation_path=", "is empty")),
    "validation of other columns": ("words,label\na,1\n", {}, ("task.text=text", "task.validation_path=", "words, ")),
    "validation of names for numbers": ("text,label\na,\nb,1\n", {}, ("task.validation_path=", "'' in row 1")),
    "validation of another class": ("text,label\na,2\n", AB, ("task.validation_path=", "2 in row 1")),
    "validation of one class": ("text,label\na,1\nb,1\n", {"metrics": ["f1"]}, ("task.metrics=f1", "at least two")),
    "validation of one score": (
        "text,label\na,1\nb,1\n", SCORES, ("task.metrics=pearson", "score 1")
    ),
}  # fmt: skip


def assert_refused(expected: Expected, path: Path, **keys: Any) -> None:
    with pytest.raises(UserError) as refused:
        load_checked(path, **keys)
    line = str(refused.value)
    assert "task." in line
    assert "\n" not in line
    assert len(line) < 500
    for part in expected:
        assert part in line


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    ending, content, keys, expected = BAD[name]
    assert_refused(expected, write_file(tmp_path / f"a.{ending}", content), **keys)


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", VALIDATION)
def test_a_bad_validation_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, keys, expected = VALIDATION[name]
    validation = write_file(tmp_path / "b.csv", content)
    assert_refused(expected, write_file(tmp_path / "a.csv", CSV), validation_path=str(validation), **keys)


@pytest.mark.usefixtures("bad_input")
def test_a_file_without_read_permission_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_file(tmp_path_factory.mktemp("closed") / "a.csv", CSV)
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # root reads everything
            os.seteuid(65534)
        assert_refused(("Permission denied", "may read"), path)
    finally:
        os.seteuid(user)
