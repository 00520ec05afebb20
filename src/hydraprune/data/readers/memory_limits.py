"""Estimates of the memory and disk that data takes, and refusal of data that does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hydraprune.data.readers.source import Source
from hydraprune.utils.system import available_memory

# Measured with texts of 20 to 2,000 characters (docs/data.md): bytes of a text as a Python object; of an example's
# tuple and label and their list entries; and, per byte of text, the text and its copy for the tokenizer.
_OBJECT, _EXAMPLE = 57, 112
_TEXT_BYTES = 2
# Bytes per token: two 4-byte numbers, twice while they are concatenated.
_TOKEN_BYTES = 16
# Bytes of text per token; few, to overestimate the tokens.
_TOKEN_TEXT = 3
# A json list is parsed as a whole, into Python objects.
_JSON_LIST_FACTOR = 12
# Bytes per row that is read, kept or not: its index in the random order, and what reading leaves behind.
_ROW_BYTES = 64
# Disk space relative to the data itself.
_DISK_FACTOR = 1.1


@dataclass(frozen=True)
class Volume:
    """The size of a data set: its rows, and the bytes of their texts in UTF-8."""

    rows: int
    text: int

    def part(self, rows: float) -> Volume:
        """The size of this many of the rows, of the same mean length."""
        share = min(1.0, rows / max(1, self.rows))
        return Volume(round(share * self.rows), round(share * self.text))

    def memory(self, columns: int, max_length: int) -> int:
        """Bytes of memory that the examples take with their tokens, about."""
        tokens = min(self.rows * max_length, self.text // _TOKEN_TEXT + 3 * self.rows)
        objects = self.rows * (_EXAMPLE + columns * _OBJECT)
        return objects + _TEXT_BYTES * self.text + _TOKEN_BYTES * tokens


def check_memory(source: Source, kept: Iterable[Volume], columns: int, max_length: int, read: int) -> None:
    """Refuse data whose kept examples would not fit into free memory.

    Args:
        kept: per split, the part that stays in memory.
        columns: texts per example.
        max_length: most tokens of an example.
        read: rows read, kept or not.

    Raises:
        UserError: with both sizes, and how many examples would fit.
    """
    volumes = tuple(kept)
    needed = _ROW_BYTES * read + sum(volume.memory(columns, max_length) for volume in volumes)
    free = available_memory()
    if needed > free:
        rows = sum(volume.rows for volume in volumes)
        fits = int(float(f"{rows * free / needed / 2:.0e}"))
        raise source.error(
            f"{rows:,} examples take about {gib(needed)} of memory, and {gib(free)} are left",
            f"give task.max_train_examples={max(1, fits)}, which reads a fixed random part, a smaller validation set, "
            f"or a machine with more memory",
        )


def check_json_memory(source: Source, file: Path) -> None:
    """Refuse a json list that is too large to be parsed as a whole.

    Raises:
        UserError: with both sizes.
    """
    size = file.stat().st_size
    needed, free = size * _JSON_LIST_FACTOR, available_memory()
    if needed > free:
        raise source.error(
            f"is a json list, which is read as a whole: its {gib(size)} take about {gib(needed)} of memory, and "
            f"{gib(free)} are left",
            f"save one object per line instead (jq -c '.[]' {file.name} > {file.stem}.jsonl), which is read in chunks",
        )


def check_disk(source: Source, size: int, folder: str) -> None:
    """Refuse data that would not fit on the disk where it is unpacked.

    Args:
        size: bytes of the data, unpacked.
        folder: where it is unpacked.

    Raises:
        UserError: with both sizes.
    """
    free = shutil.disk_usage(folder).free
    if size * _DISK_FACTOR > free:
        raise source.error(
            f"{gib(size)} are unpacked in {folder} while they are read, where {gib(free)} are free",
            "set the environment variable TMPDIR to a folder on a larger disk",
        )


def gib(size: int) -> str:
    """A number of bytes in GiB, or MiB below a tenth of one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
