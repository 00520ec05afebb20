"""Checks of csv and json files, line by line, before a library reads them.

For a file of another encoding or format the libraries raise an obscure error, put texts into the
wrong columns or, for a json file that holds a bare number, crash the process.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydraprune.data.readers.memory_limits import check_json_memory
from hydraprune.data.readers.source import Source

# (reason, cure) of a mistake in a file.
Diagnosis = tuple[str, str]

# A line is in memory several times while it is parsed.
LONGEST_LINE = 64 << 20
# Characters of a text in an error.
_QUOTED = 40
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_csv(source: Source, file: Path, columns: Sequence[str]) -> None:
    """Refuse a csv that is not UTF-8 text or has no valid header.

    Args:
        columns: the columns that will be used.

    Raises:
        UserError: naming the line and what is wrong with it.
    """
    for _ in checked_lines(source, file):
        pass
    header, first = _records(source, file, 2)
    if not header:
        raise source.error("the file is empty", "give a line that names the columns, and at least one example")
    only = _quoted(header[0]) if len(header) == 1 else ""
    for delimiter, name in _DELIMITERS.items():
        if len(header) == 1 and set(columns) & {field.strip() for field in header[0].split(delimiter)}:
            raise source.error(f"its columns are separated by {name} ({only})", "save it with commas")
    for column in columns:
        if header.count(column) > 1:
            raise source.error(f"{header.count(column)} of its columns are called {column}", "rename all but one")
    if len(first) > len(header):
        raise source.error(
            f"its header names {len(header)} columns and its first example has {len(first)} "
            f"({_quoted(','.join(first))})",
            "put a text with commas in double quotes, or name every column",
        )


def check_json(source: Source, file: Path) -> None:
    """Refuse a json file that is neither a list of objects nor one object per line, or too large a list.

    Raises:
        UserError: naming the line and what is wrong with it.
    """
    if is_json_list(file):
        check_json_memory(source, file)
        for _ in checked_lines(source, file, longest=None):
            pass
        _check_json_list(source, file)
        return
    for number, line in checked_lines(source, file):
        stripped = line.strip()
        if stripped and not (stripped.startswith(b"{") and stripped.endswith(b"}")):
            raise source.error(
                f"line {number} is not a whole json object ({_quoted(stripped)})",
                "give one object per line, or a list of objects",
            )


def is_json_list(file: Path) -> bool:
    """Whether the file starts with a list; such a file is read as a whole."""
    with file.open("rb") as opened:
        return opened.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def checked_lines(source: Source, file: Path, longest: int | None = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """The lines of a UTF-8 file with their numbers, from 1, without a byte order mark.

    Raises:
        UserError: another encoding, a NUL byte, or a line of more than `longest` bytes.
    """
    with file.open("rb") as opened:
        _check_encoding(source, file, opened.read(1024))
        opened.seek(0)
        size = -1 if longest is None else longest + 1
        for number, line in enumerate(iter(lambda: opened.readline(size), b""), start=1):
            if longest is not None and len(line) > longest:
                raise source.error(
                    f"line {number} is longer than {longest >> 20} MiB",
                    "give one example per line (a json list must start with a square bracket)",
                )
            if b"\0" in line:
                reason = f"line {number} has a NUL byte, so the file is damaged or not text"
                raise source.error(reason, "save it as UTF-8 text")
            if not line.isascii():
                _check_utf8(source, file, number, line)
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _check_encoding(source: Source, file: Path, start: bytes) -> None:
    found = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), None)
    if found is None:
        # In UTF-16 every other byte of most texts is zero.
        zeros = [start[offset::2].count(0) / max(1, len(start) // 2) for offset in (0, 1)]
        found = "UTF-16BE" if zeros[0] > 0.4 > zeros[1] else "UTF-16LE" if zeros[1] > 0.4 > zeros[0] else None
    if found is not None:
        raise source.error(f"is {found} text", f"save it as UTF-8 ({_iconv(file, found)})")


def _check_utf8(source: Source, file: Path, number: int, line: bytes) -> None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = line[error.start]
        reason = f"line {number} is not UTF-8 (byte 0x{bad:02x} at position {error.start + 1}"
        if bad == 0xED and error.start + 1 < len(line) and line[error.start + 1] >= 0xA0:
            raise source.error(f"{reason}: half of a surrogate pair)", "save the file as UTF-8") from None
        around = line[max(0, error.start - 12) : error.start + 12].decode("cp1252", "replace").strip()
        raise source.error(
            f"{reason}); in windows-1252, much like latin-1, it would read {around!r}",
            f"save the file as UTF-8; if that reading is right, by {_iconv(file, 'WINDOWS-1252')}",
        ) from None


def _iconv(file: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {file.name} > utf8_{file.name}"


def _records(source: Source, file: Path, count: int) -> list[list[str]]:
    """The first `count` records of a csv that are not blank, padded with empty ones."""
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            records = (record for record in csv.reader(opened) if len(record) > 1 or "".join(record).strip())
            return [next(records, []) for _ in range(count)]
    except csv.Error as error:
        raise source.error(f"does not start with a table ({error})", "close every double quote") from None
    finally:
        csv.field_size_limit(limit)


def _check_json_list(source: Source, file: Path) -> None:
    try:
        items = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_checked_object)
    except (ValueError, RecursionError) as error:
        raise source.error(f"is not a whole json list ({error})", "give a list of objects") from None
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise source.error(f"item {number} of its list is {_quoted(json.dumps(item))}", "give a list of objects")


def diagnose_json(source: Source, file: Path) -> Diagnosis | None:
    """The first line that is not json; None if all of them are."""
    for number, line in checked_lines(source, file):
        try:
            if line.strip():
                json.loads(line, object_pairs_hook=_checked_object)
        except (ValueError, RecursionError) as error:
            return f"line {number} is not json ({error}: {_quoted(line.strip())})", "give one json object per line"
    return None


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A json object with unique names, whose texts can be encoded.

    Raises:
        ValueError: it is not.
    """
    values = dict(pairs)
    for name, value in pairs:
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{name} holds half of a surrogate pair")
    if len(values) < len(pairs):
        raise ValueError("a name occurs twice")
    return values


def diagnose_csv(source: Source, file: Path, message: str) -> Diagnosis | None:
    """The mistake that explains the csv library's message; None if it is not known."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
        expected, line, saw = found.groups()
        reason = f"line {line} has {saw} fields and the lines before it {expected}"
        return reason, "put a text with commas in double quotes"
    if found := re.search(r"EOF inside string starting at row (\d+)", message):
        reason = f"a double quote that opens in row {found[1]} is not closed"
        return reason, "close it, or double it inside a text"
    if "int too" in message.lower() or "int too big" in message:
        numbers = (number for number, line in checked_lines(source, file) if re.search(rb"\d{19}", line))
        reason = f"line {next(numbers, '?')} holds a whole number of more than 64 bits"
        return reason, "use 0, 1, 2 ... or names as labels"
    if found := re.search(r"Failed to parse string: '(.*)' as a scalar of type (\w+)", message):
        return (
            f"a column begins with numbers ({found[2]}) but also holds {found[1]!r}",
            "give one type of value per column; if it is text, start with a row in which it is not a number",
        )
    return None


def _quoted(text: str | bytes) -> str:
    """The beginning of a text, in quotes."""
    text = text[: 4 * _QUOTED].decode("utf-8", "replace") if isinstance(text, bytes) else text
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")
