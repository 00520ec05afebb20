"""Random and damaged data files: each is read as another reader would, or refused in one line.

HYDRAPRUNE_FUZZ sets the number of examples, which is small in the suite.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from data_helpers import file_task, json_lines, write_file
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hydraprune.data.examples import TaskData
from hydraprune.errors import UserError

EXAMPLES = int(os.environ.get("HYDRAPRUNE_FUZZ", "0"))
FEW = settings(
    max_examples=EXAMPLES or 25, derandomize=not EXAMPLES, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True, scope="module")
def no_warnings() -> Iterator[None]:
    log = logging.getLogger("hydraprune")
    level = log.level
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(level)


MARKS = ('"', '""', ",", "\n", "\r\n", "\t", " ", "\\", "'", ";", "{", "}", "[", ":", '\n"', '",')
PIECES = st.sampled_from([*MARKS, "a", "b", "0", "1", "01", "1.0", "NA", "é", "true", ",1\n", ",0\n"])
BODY = st.lists(PIECES, max_size=40).map("".join)


def loaded(path: Path, content: str | bytes) -> TaskData | None:
    """The data of a file; None if it is refused, which must be in one line that names a key."""
    write_file(path, content)
    try:
        return file_task(path, validation_path=str(path), labels=[str(number) for number in range(9)]).load()
    except UserError as error:
        assert "task." in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return None


@FEW
@given(BODY)
def test_a_random_csv_is_read_as_pandas_reads_it(tmp_path_factory: pytest.TempPathFactory, body: str) -> None:
    """With all columns as texts, pandas' reader is another one for the same format."""
    content = f"text,label\n{body}\nlast,1\n"
    data = loaded(tmp_path_factory.mktemp("csv") / "a.csv", content)
    assume(data is not None)
    assert data is not None
    theirs = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False, na_filter=False)
    assert [text for (text,) in data.train.texts] == theirs["text"].tolist()


@FEW
@given(BODY)
def test_a_random_tsv_has_a_row_for_each_line(tmp_path_factory: pytest.TempPathFactory, body: str) -> None:
    content = f"text\tlabel\n{body}\nlast\t1\n"
    data = loaded(tmp_path_factory.mktemp("tsv") / "a.tsv", content)
    assume(data is not None)
    assert data is not None
    lines = [line for line in io.StringIO(content, newline=None).read().split("\n")[1:] if line.strip()]
    assert [text for (text,) in data.train.texts] == [line.split("\t")[0] for line in lines]


OBJECTS = [{"text": f"a {row}", "label": row % 2} for row in range(12)]
GOOD = {
    "csv": "text,label\n" + "".join(f'"a, {row}",{row % 2}\n' for row in range(12)),
    "tsv": "text\tlabel\n" + "".join(f"a {row}\t{row % 2}\n" for row in range(12)),
    "jsonl": json_lines(OBJECTS),
    "json": json.dumps(OBJECTS),
}


# (place, what happens there, bytes to insert)
DAMAGE = st.tuples(
    st.integers(0, 10_000), st.sampled_from(["flip", "cut", "zero", "copy", "insert"]), st.binary(max_size=4)
)


@FEW
@given(st.sampled_from(sorted(GOOD)), st.lists(DAMAGE, min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: list[tuple[int, str, bytes]]
) -> None:
    content = bytearray(GOOD[suffix].encode())
    for place, kind, more in damage:
        at = place % (len(content) or 1)
        if kind == "flip" and content:
            content[at] ^= 1 << place % 8
        elif kind == "cut":
            del content[at:]
        elif kind == "zero":
            content[at : at + 3] = bytes(3)
        else:
            content[at:at] = content[:at] if kind == "copy" else more
    data = loaded(tmp_path_factory.mktemp("damaged") / f"a.{suffix}", bytes(content))
    if data is not None:
        summary = data.summary.splits["train"]
        assert summary.read == len(data.train) == sum(summary.classes.values())
