"""A safetensors file that is read tensor by tensor, or in parts of one, by system calls.

The safetensors library maps files into memory. What was looked at of a mapping counts as memory of the process, and
where somebody writes into the file, the mapping shows a mixture of two files, or ends the process.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydraprune.utils.tensor_io import bytes_of
from hydraprune.utils.weights_files import METADATA, read_header

# Types of tensors by their names in a header.
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: from byte `start` of the file, row by row."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """A safetensors file that stays open; several threads may read at the same time.

    Args:
        path: of the file. One that is put in its place later, as `save_pretrained` does, is not read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no whole safetensors file, or holds types that are not in `TYPES`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = self._now()
        try:
            with open(self._descriptor, "rb", closefd=False) as opened:
                entries, start, size = read_header(opened)
            named = dict(entries)
            metadata = dict(named.pop(METADATA, []))
            self.metadata: Mapping[str, str] = {str(key): str(value) for key, value in metadata.items()}
            self.entries: Mapping[str, TensorEntry] = {name: _entry(dict(named[name]), start) for name in named}
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path.name} has no header of a safetensors file") from error
        if len(entries) != len(named) + (METADATA in dict(entries)):
            raise ValueError(f"{path.name} holds a name twice")
        for entry in sorted(self.entries.values(), key=lambda entry: (entry.start, entry.bytes)):
            if entry.start != start:
                raise ValueError(f"{path.name} has gaps, or tensors that overlap")
            start += entry.bytes
        if start != size:
            raise ValueError(f"{path.name} is not as long as its header says")

    def read(self, name: str, buffer: Tensor | None = None) -> Tensor:
        """A tensor of the file.

        Args:
            buffer: uint8, memory for it; None: memory of its own. A new piece of memory takes longer than to read it.

        Raises:
            OSError: it cannot be read.
        """
        entry = self.entries[name]
        memory = torch.empty(entry.bytes, dtype=torch.uint8) if buffer is None else buffer[: entry.bytes]
        tensor = memory.view(entry.dtype).view(entry.shape)
        self._read(entry.start, bytes_of(tensor))
        return tensor

    def read_rows(self, name: str, first: int, rows: Tensor) -> None:
        """Fill `rows`, contiguous and of the type in the file, with those of a tensor from number `first`.

        Raises:
            OSError: they cannot be read.
        """
        entry = self.entries[name]
        row = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        self._read(entry.start + first * row, bytes_of(rows))

    def parts(self, name: str, most: int) -> Iterator[Tensor]:
        """A tensor part by part, flat, each of at most `most` numbers. A part is valid until the next one is read.

        Raises:
            OSError: it cannot be read.
        """
        entry = self.entries[name]
        total = math.prod(entry.shape)
        buffer = torch.empty(min(total, most), dtype=entry.dtype)
        for first in range(0, total, most):
            part = buffer[: total - first]
            self._read(entry.start + first * entry.dtype.itemsize, bytes_of(part))
            yield part

    def changed(self) -> bool:
        """Whether somebody wrote into this file since it was opened; not one that was put in its place."""
        return self._now() != self._stamp

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _read(self, start: int, into: memoryview) -> None:
        while into:
            count = os.preadv(self._descriptor, [into], start)
            if not count:
                raise OSError(f"{self.path} ends before byte {start + len(into)}")
            start, into = start + count, into[count:]


def _entry(entry: dict[str, Any], start: int) -> TensorEntry:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise TypeError("no shape or place of a tensor")
    made = TensorEntry(TYPES[entry["dtype"]], shape, start + begin)
    if made.bytes != end - begin:
        raise TypeError("a tensor is not as long as its shape says")
    return made
