"""Text and label columns are read as what the file says, and all rows decide what the labels are."""

from __future__ import annotations

import csv
import io
import json
import logging
import random
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from data_helpers import CSV, LABELS, ROWS, TEXTS, file_task, json_lines, parquet_with, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

from hydraprune.data.classes import named_classes
from hydraprune.data.examples import TaskData
from hydraprune.data.tasks import HubTask
from hydraprune.errors import UserError

SCORES: dict[str, Any] = {"regression": True, "metrics": ["pearson"]}


def table(pairs: list[tuple[str, str]], delimiter: str = ",") -> str:
    """A file of texts and labels, quoted where csv needs it."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows([("text", "label"), *pairs])
    return out.getvalue()


def load(path: Path, content: str | bytes, **keys: Any) -> TaskData:
    """All rows of a file, in its order."""
    write_file(path, content)
    return file_task(path, validation_path=str(path), **keys).load()


def labelled(data: TaskData) -> list[str]:
    """The names of the labels of all training examples."""
    return [data.labels.names[int(index)] for index in data.train.labels]


def rows_of(labels: list[str], repeats: int = 3) -> list[tuple[str, str]]:
    return [(f"text {row}", label) for row, label in enumerate(labels * repeats)]


# The labels of a csv -> the names of the classes, in order.
NAMES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("0", "1"): ("0", "1"),
    ("10", "9", "2"): ("2", "9", "10"),
    ("-1", "1"): ("-1", "1"),
    ("+1", "-1"): ("-1", "+1"),
    ("0", "1.0"): ("0", "1"),
    ("1.0", "2.0"): ("1", "2"),
    (" 1", "0"): ("0", "1"),
    ("07", "7", "8"): ("07", "7", "8"),
    ("007", "008"): ("007", "008"),
    ("01", "02", "10"): ("01", "02", "10"),
    ("1.1", "1.10"): ("1.1", "1.10"),
    ("1.1", "1.2", "1.10", "2.0"): ("1.1", "1.10", "1.2", "2.0"),
    ("1", "1.1", "1.10"): ("1", "1.1", "1.10"),
    ("True", "False"): ("False", "True"),
    ("true", "false"): ("false", "true"),
    ("TRUE", "False"): ("False", "True"),
    ("True", "true", "False"): ("False", "True"),
    ("True", "False", "Unknown"): ("False", "True", "Unknown"),
    ("1e3", "1000"): ("1000", "1e3"),
    ("0x1", "1"): ("0x1", "1"),
    ("1_0", "10"): ("10", "1_0"),
    ("2020-01-01", "2020-01-02"): ("2020-01-01", "2020-01-02"),
    ("12:00", "13:00"): ("12:00", "13:00"),
    ("1,5", "2,5"): ("1,5", "2,5"),
    ("NA", "nan"): ("NA", "nan"),
    ("ham ", "ham"): ("ham", "ham "),
    ("٣", "3"): ("3", "٣"),
}


@pytest.mark.parametrize("labels", NAMES, ids="|".join)
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_class_names_are_what_the_file_says(labels: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    content = table(rows_of(list(labels)), "\t" if suffix == "tsv" else ",")
    data = load(tmp_path / f"a.{suffix}", content)
    assert data.labels.names == NAMES[labels]
    assert data.summary.splits["train"].classes == {
        name: labelled(data).count(name) for name in NAMES[labels]
    }  # fmt: skip
    assert sum(data.summary.splits["train"].classes.values()) == 3 * len(labels)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    """More than 10,000 rows sorted by label: a reader that guesses per chunk makes two classes of one."""
    for labels in (["01", "x"], ["True", "maybe"], ["007", "7"], ["1", "a"], ["1.0", "b"]):
        pairs = [(f"00{row}", label) for label in labels for row in range(10_050)]
        whole = load(tmp_path / "a.csv", table(pairs))
        assert labelled(whole) == [label for _, label in pairs]
        assert whole.train.texts == [(text,) for text, _ in pairs]
        other = load(tmp_path / "b.csv", table(pairs[::-1]))
        assert other.labels == whole.labels


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), min_size=1, max_size=12)
SUFFIXES = st.sampled_from(["csv", "jsonl", "json"])
ODD = st.sampled_from(
    ["0011", "1.10", "true", "NA", "2020-01-01", "1e5", "-0", " 7 ", "nan", "[1]", "{}", "=1+1", "0x1F"]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXT | ODD, st.sampled_from(["x", "y"])), min_size=4, max_size=9), SUFFIXES)
def test_texts_are_read_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], suffix: str
) -> None:
    pairs = [*pairs, ("a", "x"), ("b", "y")]
    objects = [{"text": text, "label": label} for text, label in pairs]
    content = {"csv": table(pairs), "jsonl": json_lines(objects), "json": json.dumps(objects)}[suffix]
    data = load(tmp_path_factory.mktemp("texts") / f"a.{suffix}", content)
    assert data.train.texts == [(text,) for text, _ in pairs]
    assert labelled(data) == [label for _, label in pairs]


NUMERAL = st.from_regex(r"\A[+-]?[0-9]{1,3}(\.[0-9]{1,2})?\Z") | st.sampled_from(
    ["True", "false", "a", "NA", "1e1", "07"]
)


@settings(max_examples=150)
@given(st.lists(NUMERAL, min_size=2, max_size=6, unique=True), st.randoms())
def test_labels_are_classes_by_their_text_or_refused(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], order: random.Random
) -> None:
    """Two labels share a class only if they are whole numbers and equal, or both true, or both false."""
    pairs = rows_of(labels)
    order.shuffle(pairs)
    path = tmp_path_factory.mktemp("labels") / "a.csv"
    try:
        data = load(path, table(pairs))
    except UserError as error:
        assert "task.regression=true" in str(error)  # noqa: PT017
        return
    classes: dict[str, set[str]] = {}
    for name, (_, label) in zip(labelled(data), pairs, strict=True):
        classes.setdefault(name, set()).add(label)
    for name, members in classes.items():
        if len(members) > 1 or name not in members:
            values = {label.lower() if label.isalpha() else float(label) for label in members}
            assert len(values) == 1
            assert name.lower() in values or float(name) in values


def test_scores_without_regression_are_no_classes(tmp_path: Path) -> None:
    for labels in (["0", "1", "0.5"], [str(i / 4) for i in range(1, 40)], ["1", "inf"]):
        with pytest.raises(UserError, match=r"task\.label=label: .*task\.regression=true"):
            load(tmp_path / "a.csv", table(rows_of(labels)))
    named = load(tmp_path / "b.csv", table(rows_of(["0", "1", "0.5"])), labels=["0", "0.5", "1"])
    assert labelled(named)[:3] == ["0", "1", "0.5"]


def test_a_column_of_texts_is_no_column_of_classes(tmp_path: Path) -> None:
    pairs = [(f"text {row}", f"another text {row}") for row in range(240)]
    with pytest.raises(
        UserError, match=r"holds 240 different values in 240 rows, too many for classes; name the column"
    ):
        load(tmp_path / "a.csv", table(pairs))
    with pytest.raises(UserError, match="is a text column of the task too"):
        file_task(tmp_path / "a.csv", label="text")
    many = [f"intent {row}" for row in range(77)]
    assert load(tmp_path / "b.csv", table(rows_of(many))).labels.count == 77


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "nan", "null", "None", " "])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_missing_score_is_refused_by_its_row(missing: str, suffix: str, tmp_path: Path) -> None:
    scores = [f"{row / 10}" for row in range(60)]
    scores[50] = missing
    pairs = [(f"text {row}", score) for row, score in enumerate(scores)]
    content = table(pairs, "\t" if suffix == "tsv" else ",")
    if suffix == "jsonl":
        content = json_lines([{"text": text, "label": score} for text, score in pairs])
    with pytest.raises(UserError, match=rf"row 51 of the file has no score \('{missing}'\)"):
        load(tmp_path / f"a.{suffix}", content, **SCORES)


def test_scores_written_as_texts_are_numbers(tmp_path: Path) -> None:
    texts = ["0.0", "1", "2.5e-1", "-3.", ".5"] * 2
    for suffix in ("csv", "jsonl"):
        rows = [{"text": str(i), "label": score} for i, score in enumerate(texts)]
        content = json_lines(rows) if suffix == "jsonl" else table([(r["text"], r["label"]) for r in rows])
        assert load(tmp_path / f"a.{suffix}", content, **SCORES).train.labels == [float(score) for score in texts]
    for wrong in ("high", "1,5", "0x10", "1_000", "inf", "٣"):
        with pytest.raises(UserError, match="row 3 of the file is not a number"):
            load(tmp_path / "b.csv", table([("a", "1"), ("b", "2"), ("c", wrong)]), **SCORES)


def test_a_class_beside_numbers_that_may_be_missing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = load(tmp_path / "a.csv", table(rows_of(["0", "1", "NA"])))
    assert data.labels.names == ("0", "1", "NA")
    assert "NA is taken as a class beside the numbers" in caplog.text


@pytest.mark.parametrize(
    "near",
    [
        ("Ham", "ham"),
        ("ham", "ham "),
        ("\u00e9t\u00e9", "e\u0301te\u0301"),
        ("\ufb01n", "fin"),
        ("STRASSE", "stra\u00dfe"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_names_that_look_alike_are_said_in_one_line(
    near: tuple[str, str], suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = rows_of([*near, "other"])
    content = table(pairs)
    if suffix == "jsonl":
        content = json_lines([{"text": text, "label": label} for text, label in pairs])
    data = load(tmp_path / f"a.{suffix}", content)
    assert data.labels.count == 3
    (line,) = [record.getMessage() for record in caplog.records if "different classes" in record.getMessage()]
    assert "\n" not in line
    assert all(ascii(name) in line for name in near)
    caplog.clear()
    load(tmp_path / "b.csv", table(rows_of(["ham", "hams", "other"])))
    load(tmp_path / f"c.{suffix}", content, labels=[*near, "other"])
    assert "different classes" not in caplog.text


LISTS: list[Any] = [[0, 1], ["a"], [], {"a": 1}, [[1]]]


@pytest.mark.parametrize("label", LISTS, ids=str)
@pytest.mark.parametrize("keys", [{}, {"labels": ["a", "b"]}, SCORES], ids=["found", "named", "scores"])
def test_lists_are_not_labels(label: Any, keys: dict[str, Any], tmp_path: Path) -> None:
    content = json_lines([*ROWS[:2], {"text": "x", "label": label}])
    with pytest.raises(
        UserError, match=r"row 3 of the file holds (a list|an object) .*one label an example.*multi-label"
    ):
        load(tmp_path / "a.jsonl", content, **keys)


def test_a_parquet_column_of_lists_is_not_a_label(tmp_path: Path) -> None:
    lists = pa.array([[label, 1] for label in LABELS])
    with pytest.raises(UserError, match=r"row 1 of the file holds a list.*one label an example"):
        load(tmp_path / "a.parquet", parquet_with(label=lists))


def typed_file(path: Path, feature: Any, labels: list[Any]) -> Path:
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    datasets.Dataset.from_dict({"text": TEXTS[: len(labels)], "label": labels}, features=features).to_parquet(path)
    return path


def test_names_that_the_data_gives_to_its_numbers_are_kept(tmp_path: Path) -> None:
    path = typed_file(tmp_path / "a.parquet", datasets.ClassLabel(names=["world", "sports", "art"]), [2, 0, 1, 0, 2, 2])
    data = file_task(path, validation_path=str(path)).load()
    assert data.labels.names == ("world", "sports", "art")
    assert data.train.labels == [2, 0, 1, 0, 2, 2]
    # Given names count by name, whatever their order.
    swapped = file_task(path, validation_path=str(path), labels=["art", "world", "sports"]).load()
    assert labelled(swapped) == labelled(data)
    # Other given names are those of the numbers.
    renamed = file_task(path, validation_path=str(path), labels=["x", "y", "z"]).load()
    assert labelled(renamed)[:2] == ["z", "x"]
    # Only those that occur.
    few = typed_file(tmp_path / "b.parquet", datasets.ClassLabel(names=["world", "sports", "art"]), [2, 0, 0, 2])
    assert file_task(few, validation_path=str(few)).load().labels.names == ("world", "art")
    # A csv beside it names them, or their numbers.
    for labels in ("world,sports,art", "0,1,2"):
        other = write_file(tmp_path / "c.csv", table([(name, name) for name in labels.split(",")]))
        assert file_task(path, validation_path=str(other)).load().evaluations["validation"].labels == [0, 1, 2]


def test_booleans_have_names(tmp_path: Path) -> None:
    path = typed_file(tmp_path / "a.parquet", datasets.Value("bool"), [True, False, False, True])
    data = file_task(path, validation_path=str(path)).load()
    assert (data.labels.names, data.train.labels) == (("False", "True"), [1, 0, 0, 1])
    for written in ("true,false", "True,False", "1,0"):
        other = write_file(tmp_path / "b.csv", table([(value, value) for value in written.split(",")]))
        assert file_task(path, validation_path=str(other)).load().evaluations["validation"].labels == [1, 0]
    assert labelled(file_task(path, validation_path=str(path), labels=["true", "false"]).load())[0] == "true"
    assert labelled(file_task(path, validation_path=str(path), labels=["no", "yes"]).load())[0] == "yes"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_given_names_that_are_numbers_are_names(suffix: str, tmp_path: Path) -> None:
    values = [1, 2, 3, 3]
    content = json_lines([{"text": str(value), "label": value} for value in values])
    if suffix == "csv":
        content = table([(str(value), str(value)) for value in values])
    assert load(tmp_path / f"a.{suffix}", content, labels=["1", "2", "3"]).train.labels == [0, 1, 2, 2]
    assert load(tmp_path / f"a.{suffix}", content, labels=["3", "2", "1"]).train.labels == [2, 1, 0, 0]
    assert load(tmp_path / f"a.{suffix}", content, labels=["a", "b", "c", "d"]).train.labels == [1, 2, 3, 3]


# Class names of which some look like numbers -> labels that are none of them, and no places either.
NUMBERED: list[tuple[list[str], list[str]]] = [
    (["01", "02", "03"], ["1", "2"]),
    (["1", "x"], ["0", "1", "x"]),
    (["1", "x"], ["01", "x"]),
    (["1", "2"], ["1", "02"]),
    (["1.5", "2.5"], ["0", "1"]),
    (["0", "0.5", "1"], ["0", "0.50"]),
    (["+1", "-1"], ["1", "-1"]),
    (["1e0", "a"], ["1", "a"]),
    (["0x1", "a"], ["1", "a"]),
    (["1,5", "a"], ["1", "a"]),
    (["1_0", "a"], ["0", "a"]),
    (["50%", "a"], ["0", "a"]),
    (["\u0661", "\u0662"], ["1", "0"]),
    (["1", "x"], ["true", "x"]),
]


@pytest.mark.parametrize(("names", "labels"), NUMBERED, ids=str)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_labels_among_names_that_look_like_numbers_are_names(
    names: list[str], labels: list[str], suffix: str, tmp_path: Path
) -> None:
    def content(values: list[str]) -> str:
        if suffix == "csv":
            return table(rows_of(values))
        return json_lines([{"text": text, "label": value} for text, value in rows_of(values)])

    with pytest.raises(UserError, match=rf"is not one of the {len(names)} labels"):
        load(tmp_path / f"a.{suffix}", content(labels), labels=names)
    assert labelled(load(tmp_path / f"b.{suffix}", content(names), labels=names)) == names * 3


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.sampled_from(["a", "1", "01", "1.0", "2", "+2", "0", "0.5", "x"]), min_size=2, unique=True))
def test_a_label_gets_another_name_only_by_its_place_or_value(names: list[str]) -> None:
    classes = named_classes(names)
    for number in range(-1, 4):
        index = classes.indices.get(number)
        if not {"a", "x"}.issuperset(names):
            assert index is None or float(names[index]) == number
        else:
            assert index == (number if 0 <= number < len(names) else None)


def test_a_number_of_a_json_file_is_the_name_that_spells_it(tmp_path: Path) -> None:
    rows = [{"text": str(i), "label": label} for i, label in enumerate([1, "x", 1.0])]
    assert load(tmp_path / "a.jsonl", json_lines(rows), labels=["x", "1"]).train.labels == [1, 0, 1]
    rows = [{"text": str(i), "label": label} for i, label in enumerate([0, 1])]
    assert labelled(load(tmp_path / "b.jsonl", json_lines(rows), labels=["0", "0.5", "1"])) == ["0", "1"]
    for label in (1, 2):
        numbered = json_lines([{"text": "x", "label": label}])
        with pytest.raises(UserError, match=r"where task\.labels holds a number, a label is one of its names"):
            load(tmp_path / "c.jsonl", numbered, labels=["01", "02"])
    with pytest.raises(UserError, match="1 in row 1 of the file is not one of the 2 labels"):
        load(tmp_path / "d.jsonl", json_lines([{"text": "x", "label": 1}]), labels=["1", "1.0"])


def test_names_of_the_data_that_differ_by_case_are_kept_apart(tmp_path: Path) -> None:
    path = typed_file(tmp_path / "a.parquet", datasets.ClassLabel(names=["US", "us"]), [0, 1, 1])
    data = file_task(path, validation_path=str(path), labels=["us", "US"]).load()
    assert labelled(data) == ["US", "us", "us"]


def test_json_labels_of_several_kinds(tmp_path: Path) -> None:
    rows = [{"text": str(i), "label": label} for i, label in enumerate([0, "b", 1, "a", True, 1.0])]
    assert load(tmp_path / "a.jsonl", json_lines(rows), labels=["a", "b"]).train.labels == [0, 1, 1, 0, 1, 1]
    assert load(tmp_path / "a.jsonl", json_lines(rows[:4])).labels.names == ("0", "1", "a", "b")


def test_a_row_that_spans_lines_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two stray quotes of 96 rows make one row of many."""
    lines = CSV.splitlines()
    lines[10] = '"' + lines[10]
    lines[15] = lines[15].replace(",", '",')
    data = load(tmp_path / "a.csv", "\n".join(lines))
    assert len(data.train) == 35
    assert data.summary.splits["train"].multiline == 1
    assert "1 rows span more than one line" in caplog.text
    assert "row 10, lines 11 to 16" in caplog.text
    # A closing quote with text after it is no end of a field.
    lines[15] = '"' + lines[15].replace('"', "")
    with pytest.raises(UserError, match=r"a double quote that opens in line 11 encloses all up to line 16"):
        load(tmp_path / "b.csv", "\n".join(lines))


def test_text_after_a_closing_quote_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path / "a.csv", CSV.replace("a sentence 3,", '"Great" film,'))
    assert "1 rows have text after a closing double quote, the first in line 5" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load(tmp_path / "b.csv", CSV.replace("a sentence 3,", 'a 5" pipe,').replace("a sentence 4,", '"a ""b"", c",'))
    assert "quote" not in caplog.text


@pytest.mark.parametrize("texts", [['"a', 'b"', 'c "d" e', '"'], ['"whole"', "x"], ['a\\"', "''"]])
def test_a_tsv_has_no_quotes(texts: list[str], tmp_path: Path) -> None:
    content = "text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts * 2))
    data = load(tmp_path / "a.tsv", content)
    assert data.train.texts == [(text,) for text in texts * 2]
    folder = tmp_path / "folder"
    folder.mkdir()
    write_file(folder / "train.tsv", content)
    write_file(folder / "dev.tsv", content)
    read = HubTask("sst2", str(folder), ["text"], "label", ["no", "yes"], ["accuracy"], "train", ["validation"], 64)
    assert read.load().train == data.train


def test_a_ragged_tsv_is_refused_by_its_line(tmp_path: Path) -> None:
    good = "text\tlabel\na\t1\nb\t0\n"
    for line, reason in (("c\td\t1", "line 4 has 3 fields"), ("c", "line 4 has 1 fields and the header 2")):
        with pytest.raises(UserError, match=reason):
            load(tmp_path / "a.tsv", f"{good}{line}\n")
    with pytest.raises(UserError, match=r"separated by commas.*or call it \.csv"):
        load(tmp_path / "b.tsv", CSV)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "csv.gz"])
def test_files_in_a_folder_are_read_like_files(suffix: str, tmp_path: Path) -> None:
    import gzip

    pairs = [("0011", "0"), ("NA", "1"), ("2020-01-01", "0"), ("True", "1")]
    objects = [{"text": text, "label": int(label)} for text, label in pairs]
    content = {"csv": table(pairs), "jsonl": json_lines(objects), "json": json.dumps(objects)}.get(suffix)
    folder = tmp_path / "folder"
    folder.mkdir()
    for split in ("train", "test"):
        write_file(folder / f"{split}.{suffix}", content or gzip.compress(table(pairs).encode()))
    task = HubTask("mine", str(folder), ["text"], "label", ["no", "yes"], ["accuracy"], "train", ["test"], 64)
    data = task.load()
    assert data.train.texts == [(text,) for text, _ in pairs]
    assert data.train.labels == [0, 1, 0, 1]


def test_a_folder_with_names_in_another_order_is_read_by_name(tmp_path: Path) -> None:
    for split in ("train", "test"):
        typed_file(tmp_path / f"{split}.parquet", datasets.ClassLabel(names=["pos", "neg"]), [0, 1, 1])
    task = HubTask("mine", str(tmp_path), ["text"], "label", ["neg", "pos"], ["accuracy"], "train", ["test"], 64)
    assert task.load().train.labels == [1, 0, 0]
