"""Is this csv or json a text that can be read? Looked at line by line, before a library reads it.

The libraries answer a file of another encoding or form with an error of theirs, with texts in the
wrong columns or, a json file that holds a bare number, with a crash of the whole process.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError

# A line is held in memory several times over while it is parsed.
LONGEST_LINE = 64 << 20
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_csv(where: str, file: Path, columns: Sequence[str]) -> None:
    """Refuse a csv that is no UTF-8 text or whose header is not one.

    Args:
        where: what the file is called in errors, as in `task.path=train.csv`.
        columns: those that will be read.

    Raises:
        UserError: naming the line and what is wrong with it.
    """
    for _ in checked_lines(where, file):
        pass
    header, first = _records(where, file, 2)
    if not header:
        raise UserError(f"{where}: the file is empty; give a line that names the columns, and at least one example")
    name = _shown(header[0]) if len(header) == 1 else ""
    for delimiter, called in _DELIMITERS.items():
        if len(header) == 1 and set(columns) & {field.strip() for field in header[0].split(delimiter)}:
            raise UserError(f"{where}: its columns are set apart by {called} ({name}); save it with commas")
    for column in columns:
        if header.count(column) > 1:
            raise UserError(f"{where}: {header.count(column)} of its columns are called {column}; rename all but one")
    if len(first) > len(header):
        raise UserError(
            f"{where}: its header names {len(header)} columns and its first example has {len(first)} "
            f"({_shown(','.join(first))}); put a text with commas in double quotes, or name every column"
        )


def check_json(where: str, file: Path) -> None:
    """Refuse a json file that is neither a list of objects nor one object a line.

    Raises:
        UserError: naming the line and what is wrong with it.
    """
    if is_json_list(file):
        for _ in checked_lines(where, file, longest=None):
            pass
        _check_list(where, file)
        return
    for number, line in checked_lines(where, file):
        stripped = line.strip()
        if stripped and not (stripped.startswith(b"{") and stripped.endswith(b"}")):
            raise UserError(
                f"{where}: line {number} is not a whole json object ({_shown(stripped)}); give one object a line, "
                f"or a list of objects"
            )


def is_json_list(file: Path) -> bool:
    """Whether the file starts as a list does; such a file is read as a whole."""
    with file.open("rb") as opened:
        return opened.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def checked_lines(where: str, file: Path, longest: int | None = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """The lines of a UTF-8 file with their numbers, from 1 on, without its byte order mark.

    Raises:
        UserError: another encoding, a NUL byte, or a line of more than `longest` bytes.
    """
    with file.open("rb") as opened:
        _check_start(where, file, opened.read(1024))
        opened.seek(0)
        size = -1 if longest is None else longest + 1
        for number, line in enumerate(iter(lambda: opened.readline(size), b""), start=1):
            if longest is not None and len(line) > longest:
                raise UserError(
                    f"{where}: line {number} is longer than {longest >> 20} MiB; give one example a line (a json list "
                    f"must start with a square bracket)"
                )
            if b"\0" in line:
                raise UserError(
                    f"{where}: line {number} has a NUL byte, so the file is damaged or no text; save it as UTF-8 text"
                )
            if not line.isascii():
                _check_utf8(where, file, number, line)
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _check_start(where: str, file: Path, start: bytes) -> None:
    found = next((name for mark, name in _BOMS if start.startswith(mark)), None)
    if found is None:
        # Most of what people write has a zero in every other byte of UTF-16.
        zeros = [start[place::2].count(0) / max(1, len(start) // 2) for place in (0, 1)]
        found = "UTF-16BE" if zeros[0] > 0.4 > zeros[1] else "UTF-16LE" if zeros[1] > 0.4 > zeros[0] else None
    if found is not None:
        raise UserError(f"{where}: is {found} text; save it as UTF-8 ({_iconv(file, found)})")


def _check_utf8(where: str, file: Path, number: int, line: bytes) -> None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = line[error.start]
        start = f"{where}: line {number} is not UTF-8 (byte 0x{bad:02x} at place {error.start + 1}"
        if bad == 0xED and error.start + 1 < len(line) and line[error.start + 1] >= 0xA0:
            raise UserError(f"{start}: half of a surrogate pair); save the file as UTF-8") from None
        around = line[max(0, error.start - 12) : error.start + 12].decode("cp1252", "replace").strip()
        raise UserError(
            f"{start}); in windows-1252, much like latin-1, it would read {around!r}; save the file as UTF-8, if that "
            f"is right by {_iconv(file, 'WINDOWS-1252')}"
        ) from None


def _iconv(file: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {file.name} > utf8_{file.name}"


def _records(where: str, file: Path, count: int) -> list[list[str]]:
    """The first records of a csv that are not blank, empty ones for those that are not there."""
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            records = (record for record in csv.reader(opened) if len(record) > 1 or "".join(record).strip())
            return [next(records, []) for _ in range(count)]
    except csv.Error as error:
        raise UserError(
            f"{where}: does not start with a table ({error}); is a double quote open that should be closed?"
        ) from None
    finally:
        csv.field_size_limit(limit)


def _check_list(where: str, file: Path) -> None:
    try:
        items = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not a whole json list ({error}); give a list of objects") from None
    for place, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise UserError(f"{where}: item {place} of its list is {_shown(json.dumps(item))}; give a list of objects")


def why_no_json(file: Path) -> str | None:
    """The first line that is no json, and why; None if all of them are."""
    for number, line in checked_lines(file.name, file):
        try:
            if line.strip():
                json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            return f"line {number} is not json ({error}: {_shown(line.strip())}); give one json object a line"
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose names is there once and whose texts can be written.

    Raises:
        ValueError: they are not.
    """
    values = dict(pairs)
    for name, value in pairs:
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{name} holds half of a surrogate pair")
    if len(values) < len(pairs):
        raise ValueError("a name stands there twice")
    return values


def why_no_csv(file: Path, reason: str) -> str | None:
    """What the csv library's `reason` means for this file; None for one that we do not know."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
        expected, line, saw = found.groups()
        return f"line {line} has {saw} fields and those before it {expected}; put a text with commas in double quotes"
    if found := re.search(r"EOF inside string starting at row (\d+)", reason):
        return f"a double quote that opens in row {found[1]} is not closed; close it, or double it inside a text"
    if "int too" in reason.lower() or "int too big" in reason:
        numbers = (number for number, line in checked_lines(file.name, file) if re.search(rb"\d{19}", line))
        return f"line {next(numbers, '?')} holds a whole number of more than 64 bits; labels are 0 and up, or names"
    if found := re.search(r"Failed to parse string: '(.*)' as a scalar of type (\w+)", reason):
        return (
            f"{found[1]!r} stands in a column that begins with numbers ({found[2]}) only; give one kind of value a "
            f"column, best in another order of the lines"
        )
    return None


def _shown(text: str | bytes, length: int = 40) -> str:
    """The beginning of a text, quoted."""
    text = text[: 4 * length].decode("utf-8", "replace") if isinstance(text, bytes) else text
    return repr(text if len(text) <= length else text[:length] + "...")
