"""Data mistakes on the command line: one line, exit code 2, no folder. See also tests/data/test_bad_data.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS: list[dict[str, object]] = [{"text": f"a sentence {i}", "label": i % 2} for i in range(40)]

# name -> (file name, content, overrides, parts of the message)
CASES: dict[str, tuple[str, bytes, tuple[str, ...], tuple[str, ...]]] = {
    "words of another language": (
        "a.jsonl",
        "\n".join(json.dumps({**row, "text": "漢字 仮名"}) for row in ROWS).encode(),
        (),
        ("does not know most words",),
    ),
    "latin-1": (
        "a.csv",
        "text,label\ncaf\u00e9,1\n".encode("latin-1"),
        (),
        ("line 2 is not UTF-8", "save the file"),
    ),
    "a bare number": ("a.json", b"5", (), ("line 1 is not a whole json object",)),
    "a single class": (
        "a.csv",
        b"text,label\n" + b"a sentence,0\n" * 20 + b"another,1\n",
        ("task.max_train_examples=1",),
        ("of one class only (0)", "at least two"),
    ),
    "metric of the other kind": (
        "a.jsonl",
        json.dumps(ROWS).encode(),
        ("task.metrics=[pearson]",),
        ("task.metrics=pearson", "accuracy"),
    ),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_one_line_and_makes_no_folder(
    name: str, train: Callable[..., Any], workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file_name, content, typed, message_parts = CASES[name]
    path = tmp_path_factory.mktemp("data") / file_name
    path.write_bytes(content)
    finished = train("model=tiny", "task=file", f"task.path={path}", "training.epochs=15", *typed)
    assert finished.code == 2, finished.err
    assert finished.err.count("\n") == 1, finished.err
    for part in message_parts:
        assert part in finished.err
    assert list(workplace.iterdir()) == []


def test_odd_data_is_trained_on(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """An odd file name, fewer rows than a batch, a line of 100,000 characters, and texts without words."""
    path = tmp_path_factory.mktemp("data") / "we ird [1].jsonl"
    texts = ["the film was good " * 5556, "", "\u200b\x01", "the plot was dull", "שלום 😀", "a good film"]
    path.write_text("\n".join(json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(texts)))
    words = ("training.epochs=2", "scheduler.warmup=1", "scheduler.cooldown=1", "training.batch_size=8")
    finished = train("model=tiny", "task=file", f"task.path='{path}'", f"task.validation_path='{path}'", *words)
    assert finished.code == 0, finished.err
