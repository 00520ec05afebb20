"""Checks of text columns, on Arrow data in chunks, without a Python object per text."""

from __future__ import annotations

import logging
from typing import Any

from hydraprune.data.readers.source import Source
from hydraprune.errors import UserError

log = logging.getLogger(__name__)
_CHUNK_ROWS = 10_000
_TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    int: "a number",
    float: "a number",
    bool: "true or false",
    bytes: "bytes",
}


def check_texts(rows: Any, column: str, source: Source, split: str) -> int:
    """Refuse a column that holds anything but texts; warn if some of them are empty.

    Args:
        split: name of the rows in errors, as in `split train`.

    Returns:
        Bytes of all texts in UTF-8.

    Raises:
        UserError: a value is not a text, naming the first row, from 1; or all texts are empty.
    """
    import pyarrow
    from pyarrow import compute

    def error(reason: str, cure: str) -> UserError:
        return UserError(f"{source}: {reason}", key="task.text", value=column, cure=cure)

    size, empty_count, first_empty, begin = 0, 0, 0, 0
    for table in rows.select_columns([column]).with_format("arrow").iter(batch_size=_CHUNK_ROWS):
        values = table[column].combine_chunks()
        if not (pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type)):
            _refuse_type(rows, column, source, split)
        if values.null_count:
            row = begin + compute.index(compute.is_null(values), True).as_py() + 1
            raise error(f"row {row} of {split} has no text (null)", "give each example a text, or leave it out")
        try:
            values.validate(full=True)
        except pyarrow.ArrowInvalid:
            row = begin + next(index for index in range(len(values)) if not _is_utf8(values[index])) + 1
            raise error(f"row {row} of {split} is not UTF-8", "write the file with texts in UTF-8") from None
        empty = compute.equal(compute.utf8_trim_whitespace(values), "")
        if found := compute.sum(empty).as_py():
            first_empty = first_empty or begin + compute.index(empty, True).as_py() + 1
            empty_count += found
        size += compute.sum(compute.binary_length(values)).as_py()
        begin += len(values)
    if empty_count == begin:
        raise error(f"every text of {split} is empty", "name the column that holds the texts")
    if empty_count:
        log.warning(
            "task.text=%s: %s: %d of %d texts of %s are empty, the first in row %d",
            column, source, empty_count, begin, split, first_empty,
        )  # fmt: skip
    return size


def _is_utf8(value: Any) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_type(rows: Any, column: str, source: Source, split: str) -> None:
    """Refuse a column of another Arrow type if any of its values is not a text, showing the first of these."""
    feature = rows.features[column]
    type_name = getattr(feature, "dtype", None) or type(feature).__name__.lower()
    for row, value in enumerate(rows[column], start=1):
        if not isinstance(value, str):
            raise not_a_text(source, column, value, row, split, type_name)


def not_a_text(source: Source, column: str, value: Any, row: int, split: str, type_name: str = "") -> UserError:
    """A value in a text column that is not a text.

    Args:
        type_name: of the column, for values of a type without a name of its own in errors.
    """
    kind = _TYPE_NAMES.get(type(value), type_name or type(value).__name__)
    text = "no text (null)" if value is None else f"{kind} ({str(value)[:40]})"
    reason = f"{source}: row {row} of {split} holds {text}"
    return UserError(reason, key="task.text", value=column, cure="give a column that holds texts only")
