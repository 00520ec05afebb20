"""A csv, json or parquet file of the user's: looked at before a library reads it, then read in pieces."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.data.examples import load_rows
from hydraprune.data.readers.memory_limits import Volume, check_disk, check_list
from hydraprune.data.readers.text_files import check_csv, check_json, is_json_list, why_no_csv, why_no_json
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import at_home, is_local, loading, reason_of

_KIND_OF = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
# A csv's "NA" may be a text or a class, not only a gap.
_OPTIONS = {"csv": {"keep_default_na": False}}
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unzip, or save it as csv"),
}
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_PARQUET = b"PAR1"
# Bytes of a file that tell how long its records are.
_SAMPLE = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """A file that can be opened.

    Args:
        key, path: as the user typed them, as in `task.path` and `~/train.csv`.
        kind: what `datasets` calls its format.
    """

    key: str
    path: str
    kind: str

    @property
    def where(self) -> str:
        """What the file is called in errors."""
        return f"{self.key}={self.path}"

    @property
    def file(self) -> Path:
        """Where it is."""
        return at_home(self.path)

    def check(self, columns: Sequence[str]) -> None:
        """Refuse what is not a file of its kind, before a library reads it.

        Args:
            columns: those that will be used.

        Raises:
            UserError: naming the line and what would be right.
        """
        if self.kind == "csv":
            check_csv(self.where, self.file, columns)
        elif self.kind == "json":
            if is_json_list(self.file):
                check_list(self.where, self.file)
            check_json(self.where, self.file)
        else:
            check_parquet(self.where, self.file, columns)

    def rows(self, scratch: str) -> Any:
        """The rows, which stay on the disk until they are asked for.

        Args:
            scratch: a folder for them, which must outlive them.

        Raises:
            UserError: the file cannot be read, or its rows have no room.
        """
        check_disk(self.where, self._unpacked(), scratch)
        with loading(self.key, self.path if is_local(self.path) else f"./{self.path}"):
            try:
                return load_rows(
                    self.kind, data_files=str(self.file), split="train", scratch=scratch, **_OPTIONS.get(self.kind, {})
                )
            except Exception as error:  # the libraries raise dozens of kinds for a broken file
                if "corresponds to no data" in str(error):
                    raise UserError(f"{self.where}: the file is empty; give at least one example") from None
                if why := self._why(reason_of(error)):
                    raise UserError(f"{self.where}: {why}") from error
                raise

    def estimated(self, text: Sequence[str]) -> Volume | None:
        """How much the file holds, from its size and its beginning; None where that cannot be told.

        Args:
            text: the columns of text.
        """
        try:
            if self.kind == "parquet":
                return _parquet_volume(self.file, text)
            return None if is_json_list(self.file) else _text_volume(self.file, self.kind, text)
        except (ValueError, csv.Error, OSError, AttributeError):
            return None  # damaged; `check` will say how

    def _unpacked(self) -> int:
        """Bytes of the rows as Arrow, about."""
        if self.kind != "parquet":
            return self.file.stat().st_size
        from pyarrow import parquet

        held = parquet.read_metadata(self.file)
        return sum(held.row_group(group).total_byte_size for group in range(held.num_row_groups))

    def _why(self, reason: str) -> str | None:
        if self.kind == "csv":
            return why_no_csv(self.file, reason)
        if self.kind == "json":
            return None if is_json_list(self.file) else why_no_json(self.file)
        return f"is damaged ({reason[:80]}); copy or write it anew"


def _text_volume(file: Path, kind: str, text: Sequence[str]) -> Volume | None:
    with file.open("rb") as opened:
        head = opened.read(_SAMPLE)
    whole = head if len(head) < _SAMPLE else head[: head.rfind(b"\n") + 1]
    lines = whole.decode("utf-8-sig").splitlines()
    records = list(csv.DictReader(lines)) if kind == "csv" else [json.loads(line) for line in lines if line.strip()]
    if not records:
        return None
    held = sum(len(r[name].encode()) for r in records for name in text if isinstance(r.get(name), str))
    times = file.stat().st_size / len(whole)
    return Volume(round(len(records) * times), round(held * times))


def _parquet_volume(file: Path, text: Sequence[str]) -> Volume:
    """What a parquet file says of itself; of texts that repeat, which it keeps once, too little."""
    from pyarrow import parquet

    held = parquet.read_metadata(file)
    groups = [held.row_group(group) for group in range(held.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    return Volume(held.num_rows, sum(c.total_uncompressed_size for c in columns if c.path_in_schema in text))


def file_at(key: str, path: str) -> DataFile:
    """The file at `path`, whose ending says what it is.

    Args:
        key: where `path` comes from, as in `task.path`.

    Raises:
        UserError: it is not there, cannot be opened or is of no kind that we read.
    """
    where, file = f"{key}={path}", at_home(path)
    kind = _KIND_OF.get(file.suffix.lower())
    endings = f"must end in one of {', '.join(_KIND_OF)}"
    try:
        mode = file.stat().st_mode
    except OSError as error:
        if os.path.islink(file):
            raise UserError(f"{where}: is a link to {os.readlink(file)}, where no file is; mend the link") from None
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{where}: no such file; give one that exists{'' if kind else f' ({endings})'}") from None
        raise UserError(f"{where}: cannot be looked at ({error.strerror}); give a file that you may read") from None
    if not stat.S_ISREG(mode):
        found = next((name for is_kind, name in _KINDS.items() if is_kind(mode)), "not a regular file")
        folder = "; a folder in the hub's layout is a task of the hub, as in task=sst2 task.path=FOLDER"
        raise UserError(f"{where}: is {found}; give a file{folder if stat.S_ISDIR(mode) else ' on a disk'}")
    try:
        with file.open("rb") as opened:
            start = opened.read(8)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}); give a file that you may read") from None
    for magic, (name, program) in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(f"{where}: is compressed ({name}); unpack it first ({program})")
    if kind is None:
        raise UserError(f"{where}: {endings}")
    if not start:
        raise UserError(f"{where}: the file is empty; give at least one example")
    return DataFile(key, path, kind)


def check_parquet(where: str, file: Path, columns: Sequence[str] = ()) -> None:
    """Refuse a parquet file that is cut off or damaged, without rows, or with a column twice.

    Raises:
        UserError: naming what is wrong.
    """
    import pyarrow
    from pyarrow import parquet

    with file.open("rb") as opened:
        start = opened.read(64)
        opened.seek(-min(4, file.stat().st_size), os.SEEK_END)
        end = opened.read()
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{where}: is only a pointer of Git LFS; fetch the file itself (git lfs pull)")
    if not start.startswith(_PARQUET):
        raise UserError(f"{where}: is not parquet, whatever its ending says; name it by what it is, or write it anew")
    if end != _PARQUET:
        raise UserError(f"{where}: is cut off: parquet ends in {_PARQUET.decode()}; copy or write it anew")
    try:
        # The plain reader counts rows that a data set of no rows would trip over.
        held = parquet.read_metadata(file)
        names = parquet.read_schema(file).names
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{where}: is damaged ({' '.join(str(error).split())[:80]}); copy or write it anew") from None
    if held.num_rows == 0:
        raise UserError(f"{where}: the file is empty; give at least one example")
    for column in columns:
        if names.count(column) > 1:
            raise UserError(f"{where}: {names.count(column)} of its columns are called {column}; rename all but one")
