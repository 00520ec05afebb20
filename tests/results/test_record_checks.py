"""Reading of records: the quick look at the text finds whatever the look at every value finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hydraprune.errors import UserError
from hydraprune.results.json_records import check_plain, read_record

NUMBERS = st.one_of(
    st.integers(-(10**130), 10**130), st.floats(allow_nan=False, allow_infinity=False), st.floats(1e90, 1e300)
)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["1e999", "a\0b", "\ud800", "12e45]", "0" * 50, "\\u0000"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@settings(max_examples=300, deadline=None)
@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
@example(value=1e200, ascii_only=True, indent=None)
@example(value=-(10**120), ascii_only=True, indent=None)
@example(value=nested(31), ascii_only=True, indent=None)
@example(value=nested(32), ascii_only=True, indent=None)
@example(value=nested(33), ascii_only=True, indent=1)
def test_the_quick_look_refuses_what_the_slow_one_refuses(
    value: Any, ascii_only: bool, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = json.dumps({"value": value}, ensure_ascii=ascii_only, indent=indent)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.getbasetemp() / "record.json"
    path.write_bytes(encoded)
    parsed = json.loads(text)
    try:
        check_plain(parsed)
        expected = True
    except ValueError:
        expected = False
    try:
        assert read_record(path) == parsed
        found = True
    except UserError:
        found = False
    assert found == expected


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("number", ["1e101", "1E101", "1.5e+200", "-2e300", "1" + "0" * 101, "1e0000101", "0.1e102"])
def test_numbers_beyond_the_largest_are_refused_however_they_are_written(number: str, tmp_path: Path) -> None:
    for text in (f'{{"a":{number}}}', f'{{"a": [{number}, 1]}}', f'{{"a": {number}\n}}', f'{{"a":[1,{number}]}}'):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match="beyond"):
            read_record(tmp_path / "r.json")
