"""The weights of a saved model, each read from its file when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hydraprune.deploy.compact_file import BITMAP, COMPACT_FILE, VALUES, read_sparse
from hydraprune.deploy.compact_weight import CompactWeight, decode
from hydraprune.deploy.file_table import FileTable
from hydraprune.utils.tensor_file import TensorFile
from hydraprune.utils.weights_files import loaded_files

# Buffers that older versions of transformers saved and newer ones make.
_MADE = "position_ids"
# Numbers of a tensor that are looked at at a time.
_PART = 1 << 18
# Types of tables that may stay in their files: none has numbers that are too large for single precision.
_ROWS_OF = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class FileWeights:
    """Weights by name.

    Args:
        files: name of each dense weight -> its file.
        sparse: those that are stored without their zeros.
        checked: those of `files` that are known to be finite.
    """

    files: Mapping[str, TensorFile]
    sparse: Mapping[str, CompactWeight]
    checked: Collection[str] = ()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight."""
        dense = {name: file.entries[name].shape for name, file in self.files.items()}
        return dense | {name: weight.shape for name, weight in self.sparse.items()}

    def read(self, name: str) -> Tensor:
        """A weight, float32; buffers of other types as they are.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds NaN or infinity.
        """
        tensor = decode(self.sparse[name]) if name in self.sparse else self.files[name].read(name)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        check_finite(name, tensor)
        return tensor

    def read_unchecked(self, name: str, buffer: Tensor) -> Tensor:
        """A weight of `files`, float32, that may hold NaN or infinity.

        Args:
            buffer: uint8, memory that it may take.

        Raises:
            OSError: it cannot be read.
        """
        return self.files[name].read(name, buffer).float()

    def bytes_of_largest(self, names: Collection[str]) -> int:
        """Bytes that the largest of some weights takes in its file."""
        return max((self.files[name].entries[name].bytes for name in names if name in self.files), default=0)

    def blocks(self, name: str) -> CompactWeight | None:
        """A weight without its zeros, which may hold NaN or infinity; None for one that is stored with them."""
        return self.sparse.get(name)

    def table(self, name: str) -> FileTable | None:
        """A matrix that stays in its file; None for one that is stored without its zeros, is empty, or of a wider type.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds NaN or infinity.
        """
        file = self.files.get(name)
        if file is None or file.entries[name].dtype not in _ROWS_OF or not math.prod(file.entries[name].shape):
            return None
        for part in file.parts(name, _PART) if name not in self.checked else ():
            check_finite(name, part)
        return FileTable(file, name)

    def changed(self) -> bool:
        """Whether a file was written into since it was opened."""
        return any(file.changed() for file in set(self.files.values()))


def checkpoint_weights(folder: Path) -> FileWeights | None:
    """The weights of a folder with safetensors files; None where there are none, or one of them holds no floats.

    Raises:
        OSError, ValueError: a file cannot be read, or two hold a name.
    """
    files = _by_name([TensorFile(folder / name) for name in loaded_files(folder)])
    plain = all(file.entries[name].dtype.is_floating_point for name, file in files.items())
    return FileWeights(files, {}) if files and plain else None


def compact_weights(folder: Path) -> FileWeights:
    """The weights of a folder with a compact file, all of whose bytes are checked.

    Raises:
        OSError, ValueError, UserError: the file cannot be read or used.
    """
    file = TensorFile(folder / COMPACT_FILE)
    sparse = read_sparse(file, check_finite)
    parts = {name + kind for name in sparse for kind in (BITMAP, VALUES)}
    files = {name: file for name in file.entries if name not in parts}
    return FileWeights(files, sparse, files.keys())


def _by_name(files: Sequence[TensorFile]) -> dict[str, TensorFile]:
    found: dict[str, TensorFile] = {}
    for file in files:
        for name in file.entries:
            if name.rpartition(".")[2] == _MADE:
                continue
            if name in found:
                raise ValueError(f"{name} is stored twice")
            found[name] = file
    return found


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse a tensor with NaN or infinity.

    Raises:
        ValueError: it holds one of them.
    """
    if not tensor.is_floating_point():
        return
    # A sum takes one pass, in half precision a long one; one that overflows is looked at number by number.
    if not bool(tensor.float().sum().isfinite()) and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity")
