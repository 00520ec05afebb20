"""Data files of the user: csv, json or parquet, checked before `datasets` reads them."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.data.readers.memory_limits import Volume, check_disk
from hydraprune.data.readers.parquet import check_parquet, parquet_volume, unpacked_size
from hydraprune.data.readers.rows import load_rows
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.text_files import (
    Diagnosis,
    check_csv,
    check_json,
    diagnose_csv,
    diagnose_json,
    is_json_list,
)
from hydraprune.utils.hub_access import at_home, is_local, loading, reason_of

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
# "NA" in a csv may be a text or a class, not only a missing value.
_LOAD_OPTIONS = {"csv": {"keep_default_na": False}}
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
        format: as `datasets` calls it: csv, json or parquet.
    """

    source: Source
    format: str

    @property
    def path(self) -> Path:
        """The path, with ~ expanded."""
        return at_home(self.source.path)

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a file that is not of its format, before a library reads it.

        Args:
            columns: the columns that will be used.

        Raises:
            UserError: naming the line and the cure.
        """
        if self.format == "csv":
            check_csv(self.source, self.path, columns)
        elif self.format == "json":
            check_json(self.source, self.path)
        else:
            check_parquet(self.source, self.path, columns)

    def rows(self, scratch: str) -> Any:
        """The rows; they stay on the disk until they are used.

        Args:
            scratch: a folder for them, which must outlive them.

        Raises:
            UserError: the file cannot be read, or its rows do not fit on the disk.
        """
        size = unpacked_size(self.path) if self.format == "parquet" else self.path.stat().st_size
        check_disk(self.source, size, scratch)
        path = self.source.path
        with loading(self.source.key, path if is_local(path) else f"./{path}"):
            try:
                options = _LOAD_OPTIONS.get(self.format, {})
                return load_rows(self.format, data_files=str(self.path), split="train", scratch=scratch, **options)
            except Exception as error:  # the libraries raise dozens of classes for a broken file
                if "corresponds to no data" in str(error):
                    raise self.source.error("the file is empty", "give at least one example") from None
                if diagnosis := self._diagnose(reason_of(error)):
                    raise self.source.error(*diagnosis) from error
                raise

    def estimate(self, text: Sequence[str]) -> Volume | None:
        """The size of the data, from the size and the beginning of the file; None if it cannot be estimated.

        Args:
            text: the text columns.
        """
        try:
            if self.format == "parquet":
                return parquet_volume(self.path, text)
            return None if is_json_list(self.path) else _text_volume(self.path, self.format, text)
        except (ValueError, csv.Error, OSError, AttributeError):
            return None  # damaged; `check` says how

    def _diagnose(self, reason: str) -> Diagnosis | None:
        if self.format == "csv":
            return diagnose_csv(self.source, self.path, reason)
        if self.format == "json":
            return None if is_json_list(self.path) else diagnose_json(self.source, self.path)
        return f"is damaged ({reason[:80]})", "copy or write it again"


def _text_volume(file: Path, format: str, text: Sequence[str]) -> Volume | None:
    with file.open("rb") as opened:
        head = opened.read(_SAMPLE)
    whole_lines = head if len(head) < _SAMPLE else head[: head.rfind(b"\n") + 1]
    lines = whole_lines.decode("utf-8-sig").splitlines()
    try:
        records = list(csv.DictReader(lines)) if format == "csv" else [json.loads(s) for s in lines if s.strip()]
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
    format = _FORMATS.get(file.suffix.lower())
    suffixes = f"must end in one of {', '.join(_FORMATS)}"
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
    return DataFile(source, format)
