"""csv and tsv files: every field is read as the text that the file holds.

In a csv, double quotes enclose a field that holds commas, quotes or line breaks. A tsv has no quotes by definition
(IANA's text/tab-separated-values, and GLUE's files): a field holds neither tabs nor line breaks.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Table, stored_rows
from hydraprune.data.readers.text_files import LONGEST_LINE, checked_lines, quoted
from hydraprune.errors import UserError

log = logging.getLogger(__name__)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SUFFIXES = {",": "csv", "\t": "tsv"}
# Follows the last line: if it is not a record of its own, a quote is open. No UTF-8 file holds this character.
_END = "\udcff"


@dataclass(frozen=True)
class Record:
    """A row of the file that is not blank.

    Args:
        fields: as they are read, without the quotes that enclose them.
        first, last: its lines, from 1.
        lines: as they are in the file.
    """

    fields: list[str]
    first: int
    last: int
    lines: tuple[str, ...]


class DelimitedFile:
    """A csv or tsv file with a header.

    Args:
        delimiter: a comma, or a tab; see the module for quotes.
    """

    def __init__(self, source: Source, path: Path, delimiter: str) -> None:
        self.source, self.path, self.delimiter = source, path, delimiter

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a file that is not UTF-8 text or has no valid header.

        Args:
            columns: the columns that will be used.

        Raises:
            UserError: naming the line and what is wrong with it.
        """
        for _ in checked_lines(self.source, self.path):
            pass
        records = self._records()
        header, first = next(records, None), next(records, None)
        if header is None:
            raise self.source.error("the file is empty", "give a line that names the columns, and at least one example")
        names = header.fields
        for delimiter, kind in _SEPARATORS.items():
            if len(names) == 1 and set(columns) & {field.strip() for field in names[0].split(delimiter)} - {*names}:
                cure = f"save it with {_SEPARATORS[self.delimiter]}"
                if delimiter in _SUFFIXES:
                    cure += f", or call it .{_SUFFIXES[delimiter]}"
                raise self.source.error(f"its columns are separated by {kind} ({quoted(names[0])})", cure)
        for column in columns:
            if names.count(column) > 1:
                raise self.source.error(
                    f"{names.count(column)} of its columns are called {column}", "rename all but one"
                )
        if first is not None and len(first.fields) > len(names):
            raise self.source.error(
                f"its header names {len(names)} columns and its first example has {len(first.fields)} "
                f"({quoted(self.delimiter.join(first.fields))})",
                self._cure_of_many_fields("or name every column"),
            )

    def column_names(self) -> list[str]:
        """The names in the header; those of columns without a name are `Unnamed: 0` and so on."""
        header = next(self._records())
        return [name or f"Unnamed: {place}" for place, name in enumerate(header.fields)]

    def table(self, columns: Sequence[str], file: Path) -> Table:
        """The rows of some columns, as texts.

        Args:
            columns: columns that the header names.
            file: where the rows are stored.

        Raises:
            UserError: a row has more fields than the header, or a quote is not closed, naming the line.
            OSError: the rows cannot be stored.
        """
        import pyarrow

        notes = _Notes()
        names = self.column_names()
        places = [names.index(column) for column in columns]
        records = ([record.fields[place] for place in places] for record in self._rows(len(names), notes))
        rows = stored_rows(records, dict.fromkeys(columns, pyarrow.string()), file)
        notes.log(self.source)
        return Table(rows, untyped=True, multiline=notes.multiline)

    def _rows(self, width: int, notes: _Notes) -> Iterator[Record]:
        """The records after the header, with `width` fields each."""
        records = self._records()
        next(records)
        for row, record in enumerate(records, start=1):
            found = len(record.fields)
            if found > width:
                raise self.source.error(
                    f"line {record.first} has {found} fields and the lines before it {width}",
                    self._cure_of_many_fields(),
                )
            if found < width and self.delimiter == "\t":
                raise self.source.error(
                    f"line {record.first} has {found} fields and the header {width}",
                    "give every row as many tabs as the header; a tsv has no quotes, so no text may hold a line break",
                )
            if self.delimiter == "," and any('"' in line for line in record.lines):
                self._check_quotes(record, row, notes)
            record.fields.extend([""] * (width - found))
            yield record

    def _cure_of_many_fields(self, more: str = "") -> str:
        if self.delimiter == "\t":
            return "replace the tabs in its texts: a tsv has no quotes"
        return f"put a text with commas in double quotes{', ' if more else ''}{more}"

    def _check_quotes(self, record: Record, row: int, notes: _Notes) -> None:
        """Note a row that spans lines, or has text after a closing quote; refuse one that does both."""
        notes.add_lines(record, row)
        try:
            next(csv.reader(record.lines, strict=True))
        except csv.Error:
            if record.last > record.first:
                raise self.source.error(
                    f"a double quote that opens in line {record.first} encloses all up to line {record.last}, where "
                    f"text follows the closing one",
                    "remove the stray quote, or double every quote inside a text and enclose the text in quotes",
                ) from None
            notes.add_dropped(record)

    def _records(self) -> Iterator[Record]:
        """All records that are not blank, the header first."""
        limit = csv.field_size_limit(LONGEST_LINE)
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as opened:
                yield from self._parsed(opened)
        except csv.Error as error:
            raise self.source.error(f"is not a table ({error})", "close every double quote") from None
        finally:
            csv.field_size_limit(limit)

    def _parsed(self, opened: TextIO) -> Iterator[Record]:
        lines: list[str] = []

        def passed() -> Iterator[str]:
            for line in opened:
                lines.append(line)
                yield line
            yield _END

        quoting: Any = csv.QUOTE_NONE if self.delimiter == "\t" else csv.QUOTE_MINIMAL
        last = row = 0
        reader = csv.reader(passed(), delimiter=self.delimiter, quoting=quoting)
        for fields in reader:
            first, last = last + 1, reader.line_num
            if fields == [_END]:
                return
            if fields and fields[-1].endswith(_END):
                raise self._open_quote(row, first)
            if "".join(lines).strip():
                yield Record(fields, first, last, tuple(lines))
                row += 1
            lines.clear()

    def _open_quote(self, row: int, line: int) -> UserError:
        reason = f"a double quote that opens in row {row} is not closed (line {line})"
        return self.source.error(reason, "close it, or double it inside a text")


class _Notes:
    """What is odd about the quotes of a file."""

    def __init__(self) -> None:
        self.multiline = self.dropped = 0
        self.first_lines = self.first_dropped = ""

    def add_lines(self, record: Record, row: int) -> None:
        """Count a row that spans more than one line."""
        if record.last > record.first:
            self.multiline += 1
            self.first_lines = self.first_lines or f"row {row}, lines {record.first} to {record.last}"

    def add_dropped(self, record: Record) -> None:
        """Count a row in which text follows a closing quote, so that the quotes are not part of the text."""
        self.dropped += 1
        self.first_dropped = self.first_dropped or f"line {record.first}"

    def log(self, source: Any) -> None:
        """Say it, in a line each."""
        if self.multiline:
            log.warning(
                "%s: %d rows span more than one line, since a double quote opens there and closes later; the first is "
                "%s. Where that is no text with line breaks, a quote is stray: remove it, or double it",
                source, self.multiline, self.first_lines,
            )  # fmt: skip
        if self.dropped:
            log.warning(
                "%s: %d rows have text after a closing double quote, the first in %s: these quotes are not read as "
                "part of the text. Enclose the whole text in quotes, and double those inside it",
                source, self.dropped, self.first_dropped,
            )  # fmt: skip
