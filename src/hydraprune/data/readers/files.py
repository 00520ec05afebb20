"""Data files of the user: csv, tsv, json or parquet, checked and read."""

from __future__ import annotations

import csv
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.data.readers.delimited_files import DelimitedFile
from hydraprune.data.readers.json_files import JsonFile, is_json_list
from hydraprune.data.readers.memory_limits import Volume, check_disk
from hydraprune.data.readers.parquet import check_parquet, parquet_names, parquet_volume, unpacked_size
from hydraprune.data.readers.rows import load_rows
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Columns, Table
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import at_home, is_local, loading, reason_of

FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".tsv": "tsv"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
# First bytes -> (name, cure).
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "unpack it first (gunzip)"),
    b"BZh": ("bzip2", "unpack it first (bunzip2)"),
    b"\xfd7zXZ\0": ("xz", "unpack it first (unxz)"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unpack it first (unzstd)"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it first (unzip), or save it as csv"),
}
_FILE_TYPES = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
# Bytes of a file from which the length of its records is estimated.
_SAMPLE = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """A file that can be opened.

    Args:
        source: its name in errors.
        path: with ~ expanded.
        format: csv, tsv, json or parquet.
    """

    source: Source
    path: Path
    format: str

    def table(self, columns: Columns, scratch: str) -> Table:
        """Check the file and read some of its columns; they stay on the disk until they are used.

        Args:
            scratch: a folder for them, which must outlive them.

        Raises:
            UserError: the file is not of its format, lacks a column, or its rows do not fit on the disk; naming the
                line or row, and the cure.
        """
        size = self.path.stat().st_size
        with loading(self.source.key, self.source.path if is_local(self.source.path) else f"./{self.source.path}"):
            if self.format == "parquet":
                return self._parquet(columns, scratch)
            check_disk(self.source, size, scratch)
            stored = Path(tempfile.mkdtemp(dir=scratch)) / "rows.arrow"
            if self.format == "json":
                json_file = JsonFile(self.source, self.path)
                json_file.check(columns.label)
                if not json_file.column_names():
                    raise self._empty()
                check_names(self.source, columns, json_file.column_names())
                return json_file.table(columns, stored)
            delimited = DelimitedFile(self.source, self.path, _DELIMITERS[self.format])
            delimited.check(columns.all)
            check_names(self.source, columns, delimited.column_names())
            table = delimited.table(columns.all, stored)
            if len(table) == 0:
                raise self._empty()
            return table

    def _empty(self) -> UserError:
        return self.source.error("the file is empty", "give at least one example")

    def _parquet(self, columns: Columns, scratch: str) -> Table:
        check_parquet(self.source, self.path, columns.all)
        check_names(self.source, columns, parquet_names(self.path))
        check_disk(self.source, unpacked_size(self.path), scratch)
        try:
            rows = load_rows("parquet", data_files=str(self.path), split="train", scratch=scratch)
        except Exception as error:  # the library raises dozens of classes for a broken file
            raise self.source.error(f"is damaged ({reason_of(error)[:80]})", "copy or write it again") from error
        return Table.of_dataset(rows, columns.label)

    def estimate(self, text: Sequence[str]) -> Volume | None:
        """The size of the data, from the size and the beginning of the file; None if it cannot be estimated.

        Args:
            text: the text columns.
        """
        try:
            if self.format == "parquet":
                return parquet_volume(self.path, text)
            return None if is_json_list(self.path) else _text_volume(self.path, self.format, text)
        except (ValueError, csv.Error, OSError, AttributeError, RecursionError):
            return None  # damaged; `table` says how


def check_names(source: Source, columns: Columns, names: Sequence[str]) -> None:
    """Refuse data without one of the columns that are used.

    Raises:
        UserError: naming the columns that it has.
    """
    for key, column in [*(("task.text", column) for column in columns.text), ("task.label", columns.label)]:
        if column not in names:
            known = ", ".join(name if name == name.strip() != "" else repr(name) for name in names)
            raise UserError(f"{source} has no such column; it has {known[:400]}", key=key, value=column)


def _text_volume(file: Path, format: str, text: Sequence[str]) -> Volume | None:
    with file.open("rb") as opened:
        head = opened.read(_SAMPLE)
    whole_lines = head if len(head) < _SAMPLE else head[: head.rfind(b"\n") + 1]
    lines = whole_lines.decode("utf-8-sig").splitlines()
    try:
        if format == "json":
            records = [json.loads(line) for line in lines if line.strip()]
        else:
            quoting: Any = csv.QUOTE_NONE if format == "tsv" else csv.QUOTE_MINIMAL
            records = list(csv.DictReader(lines, delimiter=_DELIMITERS[format], quoting=quoting))
    except RecursionError:  # the reader names the line
        return None
    if not records:
        return None
    size = sum(len(r[name].encode()) for r in records for name in text if isinstance(r.get(name), str))
    scale = file.stat().st_size / len(whole_lines)
    return Volume(round(len(records) * scale), round(size * scale))


def open_data_file(key: str, path: str) -> DataFile:
    """The file at `path`, whose suffix names its format.

    Args:
        key: config key of `path`.

    Raises:
        UserError: it does not exist, cannot be opened or has another format.
    """
    source, file = Source(key, path), at_home(path)
    format = FORMATS.get(file.suffix.lower())
    suffixes = f"must end in one of {', '.join(FORMATS)}"
    try:
        mode = file.stat().st_mode
    except OSError as error:
        if os.path.islink(file):
            reason = f"is a link to {os.readlink(file)}, which does not exist"
            raise source.error(reason, "repair the link") from None
        if isinstance(error, FileNotFoundError):
            cure = f"give one that exists{'' if format else f' ({suffixes})'}"
            raise source.error("no such file", cure) from None
        raise source.error(f"cannot be accessed ({error.strerror})", "give a file that you may read") from None
    if not stat.S_ISREG(mode):
        found = next((name for is_type, name in _FILE_TYPES.items() if is_type(mode)), "not a regular file")
        folder = "give a file; for a folder in the hub's layout use a hub task, as in task=sst2 task.path=FOLDER"
        raise source.error(f"is {found}", folder if stat.S_ISDIR(mode) else "give a file on a disk")
    try:
        with file.open("rb") as opened:
            start = opened.read(8)
    except OSError as error:
        raise source.error(f"cannot be read ({error.strerror})", "give a file that you may read") from None
    for magic, (name, cure) in _COMPRESSED.items():
        if start.startswith(magic):
            raise source.error(f"is compressed ({name})", cure)
    if format is None:
        raise source.error(suffixes)
    if not start:
        raise source.error("the file is empty", "give at least one example")
    return DataFile(source, file, format)
