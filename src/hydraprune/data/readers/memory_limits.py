"""Does it fit? What data takes of memory and disk, before it is taken."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.utils.system import available_memory

# Measured with texts of 20 to 2,000 characters (docs/data.md): a text as an object, and its example's
# tuple, label and places in lists; and, for every byte of text, the text, its copy on the way to the tokenizer
# and its tokens.
_OBJECT, _EXAMPLE = 57, 112
_TEXT_BYTES = 2
# Bytes a token: two numbers of four bytes, twice while they are put together.
_TOKEN_BYTES = 16
# Bytes of text in a token: few, to be on the safe side.
_TOKEN_TEXT = 3
# A json list is parsed as a whole, into objects.
_LIST_TIMES = 12
# Bytes for every row that is read, kept or not: its place in the order of drawing, and what reading leaves.
_READ = 64
# Room on the disk besides the data itself.
_DISK_TIMES = 1.1


@dataclass(frozen=True)
class Volume:
    """How much there is of a data set: its rows, and the bytes of their texts in UTF-8."""

    rows: int
    text: int

    def part(self, rows: float) -> Volume:
        """So many of the rows, of the same mean length."""
        share = min(1.0, rows / max(1, self.rows))
        return Volume(round(share * self.rows), round(share * self.text))

    def memory(self, columns: int, max_length: int) -> int:
        """Bytes of memory that examples take with their tokens, about."""
        tokens = min(self.rows * max_length, self.text // _TOKEN_TEXT + 3 * self.rows)
        objects = self.rows * (_EXAMPLE + columns * _OBJECT)
        return objects + _TEXT_BYTES * self.text + _TOKEN_BYTES * tokens


def check_memory(where: str, kept: Iterable[Volume], columns: int, max_length: int, read: int) -> None:
    """Refuse data whose kept examples would not fit into the memory that is left.

    Args:
        where: what the data is called in errors, as in `task.path=...`.
        kept: of every split, what will be in memory.
        columns: texts per example.
        read: rows of all of them, kept or not.

    Raises:
        UserError: with both sizes, and how many examples would fit.
    """
    volumes = tuple(kept)
    needed = _READ * read + sum(volume.memory(columns, max_length) for volume in volumes)
    left = available_memory()
    if needed > left:
        rows = sum(volume.rows for volume in volumes)
        fits = int(float(f"{rows * left / needed / 2:.0e}"))
        raise UserError(
            f"{where}: {rows:,} examples take about {gib(needed)} of memory, and {gib(left)} are left; give "
            f"task.max_train_examples={max(1, fits)}, which reads a fixed random part, a smaller validation set, or "
            f"a machine with more memory"
        )


def check_list(where: str, file: Path) -> None:
    """Refuse a json list too large to be parsed as a whole.

    Raises:
        UserError: with both sizes.
    """
    needed, left = file.stat().st_size * _LIST_TIMES, available_memory()
    if needed > left:
        raise UserError(
            f"{where}: is a json list, which is read as a whole; its {gib(file.stat().st_size)} take about "
            f"{gib(needed)} of memory, and {gib(left)} are left; save one object a line instead (jq -c '.[]' "
            f"{file.name} > {file.stem}.jsonl), which is read in pieces"
        )


def check_disk(where: str, size: int, folder: str | None = None) -> None:
    """Refuse data that would not fit on the disk where it is unpacked.

    Args:
        size: bytes of the data, unpacked.
        folder: where; None for the system's folder of temporary files.

    Raises:
        UserError: with both sizes.
    """
    folder = folder or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size * _DISK_TIMES > free:
        raise UserError(
            f"{where}: {gib(size)} are unpacked in {folder} while they are read, where {gib(free)} are free; set the "
            f"environment variable TMPDIR to a folder on a larger disk"
        )


def gib(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
