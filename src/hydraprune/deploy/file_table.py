"""A table of embeddings that stays in its file: rows are read when a text first has their words."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydraprune.errors import UserError
from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.encoders import Encoder, EncoderWeights
from hydraprune.kernels.packing import Precision
from hydraprune.utils.tensor_file import TensorFile

# Rows that are read at a time where all are.
_ROWS = 1024


class FileTable:
    """The rows of a matrix in a file. Memory is taken by those that were asked for, a page for each or two.

    The file is read and not mapped: a row of 1.5 kB would bring 64 kB of its neighbours into memory, and a file that
    is written into would change the model, or end the process.

    Args:
        file: stays open, so that it may be replaced or removed.
        name: of a float tensor [rows, size] in it.
    """

    def __init__(self, file: TensorFile, name: str) -> None:
        self._file, self._name = file, name
        rows, size = file.entries[name].shape
        # The system gives pages that are written to, one by one.
        memory = mmap.mmap(-1, max(1, 4 * rows * size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        # float32 [rows, size].
        self.tensor = torch.frombuffer(memory, dtype=torch.float32, count=rows * size).view(rows, size)
        self._is_read = np.zeros(rows, np.bool_)

    def read(self, ids: Tensor) -> None:
        """Have the rows of some ids in the tensor; those out of range are left to others to refuse.

        Args:
            ids: int64 of any shape, on the CPU.

        Raises:
            UserError: the file was written into, or cannot be read any more.
        """
        wanted = ids.detach().numpy().reshape(-1)
        if self._is_read.take(wanted, mode="clip").all():
            return
        wanted = np.unique(wanted)
        wanted = wanted[(wanted >= 0) & (wanted < len(self._is_read))]
        missing = wanted[~self._is_read[wanted]]
        runs = np.flatnonzero(np.diff(missing, prepend=-2) != 1)
        for run in np.split(missing, runs[1:]) if len(missing) else ():
            self._read(int(run[0]), len(run))

    def read_all(self) -> None:
        """Have all rows in the tensor.

        Raises:
            UserError: as `read`.
        """
        for first in range(0, len(self._is_read), _ROWS):
            self.read(torch.arange(first, min(first + _ROWS, len(self._is_read))))

    def _read(self, first: int, count: int) -> None:
        # Threads may do the same at once: they write the same numbers.
        entry = self._file.entries[self._name]
        target = self.tensor.detach()[first : first + count]
        try:
            if entry.dtype == torch.float32:
                self._file.read_rows(self._name, first, target)
            else:
                rows = torch.empty(count, entry.shape[1], dtype=entry.dtype)
                self._file.read_rows(self._name, first, rows)
                target.copy_(rows)
        except OSError as error:
            raise UserError(f"cannot be read any more ({error.strerror or error})", key=str(self._file.path)) from None
        if self._file.changed():
            cure = "load the model again, and put a new file in the place of the old one rather than write into it"
            raise UserError("was written into since the model was loaded", key=str(self._file.path), cure=cure)
        self._is_read[first : first + count] = True


class FileTableEncoder(Encoder):
    """An encoder whose words are in a file. Its copies, and what a process is sent, have them in memory.

    A call raises UserError as `FileTable.read` does.
    """

    def __init__(self, weights: EncoderWeights, compiled: Compiled, table: FileTable) -> None:
        self.table = table
        super().__init__(weights, compiled)

    def _run(self, function: Any, ids: Tensor, types: Tensor | None, mask: Tensor | None, output: Tensor) -> None:
        if not ids.is_floating_point():
            ids = ids.to(device="cpu", dtype=torch.int64)
            self.table.read(ids)
        super()._run(function, ids, types, mask, output)

    def __reduce__(self) -> tuple[type[Encoder], tuple[EncoderWeights, Compiled, Precision]]:
        self.table.read_all()
        return Encoder, (self.weights, self.compiled, self.attention)
