"""Is this column one of texts? Looked at as Arrow, some rows at a time, without an object for each."""

from __future__ import annotations

import logging
from typing import Any

from hydraprune.errors import UserError

log = logging.getLogger(__name__)
_ROWS = 10_000


def check_texts(rows: Any, column: str, where: str, split: str) -> int:
    """Refuse a column that holds something else than texts; say so when some of them are empty.

    Args:
        where: what the data is called in errors, as in `task.path=...`.
        split: what the rows are called, as in `split train`.

    Returns:
        Bytes of all texts.

    Raises:
        UserError: naming the row, from 1 on, of the first that is no text; or all texts are empty.
    """
    import pyarrow
    from pyarrow import compute

    key = f"task.text={column}: {where}"
    size, blank, first_blank, begin = 0, 0, 0, 0
    for table in rows.select_columns([column]).with_format("arrow").iter(batch_size=_ROWS):
        values = table[column].combine_chunks()
        if not (pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type)):
            _refuse_kind(rows, column, key, split)
        if values.null_count:
            row = begin + compute.index(compute.is_null(values), True).as_py() + 1
            raise UserError(f"{key}: row {row} of {split} has no text (null); give each example some, or leave it out")
        try:
            values.validate(full=True)
        except pyarrow.ArrowInvalid:
            row = begin + next(place for place in range(len(values)) if not _is_valid(values[place]))
            raise UserError(
                f"{key}: row {row + 1} of {split} is not UTF-8; write the file with texts in UTF-8"
            ) from None
        empty = compute.equal(compute.utf8_trim_whitespace(values), "")
        if found := compute.sum(empty).as_py():
            first_blank = first_blank or begin + compute.index(empty, True).as_py() + 1
            blank += found
        size += compute.sum(compute.binary_length(values)).as_py()
        begin += len(values)
    if blank == begin:
        raise UserError(f"{key}: every text of {split} is empty; name the column that holds the texts")
    if blank:
        log.warning("%s: %d of %d texts of %s are empty, the first in row %d", key, blank, begin, split, first_blank)
    return size


def _is_valid(value: Any) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_kind(rows: Any, column: str, key: str, split: str) -> None:
    """The column is not one of texts: which value shows it?"""
    kind = rows.features[column]
    named = getattr(kind, "dtype", None) or type(kind).__name__.lower()
    for row, value in enumerate(rows[column], start=1):
        if not isinstance(value, str):
            shown = f"{_KINDS.get(type(value), named)} ({str(value)[:40]})" if value is not None else "no text (null)"
            raise UserError(f"{key}: row {row} of {split} holds {shown}; give a column that holds texts only")


_KINDS = {dict: "an object", list: "a list", int: "a number", float: "a number", bool: "true or false", bytes: "bytes"}
