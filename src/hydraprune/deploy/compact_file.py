"""The compact file of a model's weights, as docs/compact_format.md describes it: writing, and reading with checks."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hydraprune.deploy.compact_weight import CompactWeight, damage
from hydraprune.errors import UserError, single_line
from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.tensor_file import TYPES, TensorFile
from hydraprune.utils.tensor_io import bytes_of

COMPACT_FILE = "compact.safetensors"
# The one entry of the file's metadata; several would be written in random order.
KEY, VERSION = "hydraprune-compact", 1
BITMAP, VALUES = ".bitmap", ".values"
# Numbers of a tensor that are hashed at a time.
_PART = 1 << 18
# Types that occur in a file -> their names in its header.
_TYPES = {dtype: name for name, dtype in TYPES.items()}


# Sparse weight -> its shape and the rows of a block.
Index = Mapping[str, tuple[tuple[int, int], int]]


@dataclass(frozen=True)
class CompactTensors:
    """All weights of a model by name: matrices without their zeros, and tensors as they are."""

    sparse: Mapping[str, CompactWeight]
    dense: Mapping[str, Tensor]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight in the model."""
        return self.sparse[name].shape if name in self.sparse else tuple(self.dense[name].shape)


def write_compact_file(tensors: CompactTensors, path: Path) -> None:
    """Write a compact file atomically; it is on the disk when this returns.

    Raises:
        ValueError: a weight has a name or a type that the format has no place for.
        OSError: it cannot be written.
    """
    stored = {name: _alone(tensor.detach().cpu().contiguous()) for name, tensor in tensors.dense.items()}
    for name, weight in tensors.sparse.items():
        stored |= {name + BITMAP: weight.bitmap, name + VALUES: weight.values}
    if len(stored) != len(tensors.dense) + 2 * len(tensors.sparse) or tensors.sparse.keys() & stored.keys():
        raise ValueError(f"has weights whose names end in {BITMAP} or {VALUES}")
    if others := sorted(name for name, tensor in stored.items() if tensor.dtype not in _TYPES):
        raise ValueError(f"{others[0]} is {stored[others[0]].dtype}, which has no place in a compact file")
    index = {name: (weight.shape, weight.block_rows) for name, weight in tensors.sparse.items()}
    weights = {name: {"shape": shape, "block": block} for name, (shape, block) in index.items()}
    description = {"version": VERSION, "sha256": _digest(index, stored), "weights": weights}
    header = {KEY: json.dumps(description, sort_keys=True, separators=(",", ":"))}
    try:
        with atomic_write(path) as temporary:
            save_file(stored, temporary, header)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


def read_compact_file(path: Path) -> CompactTensors:
    """The weights in a compact file; nothing is decoded.

    Raises:
        UserError: it is no compact file, of another version, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            description = _description(file.metadata() or {}, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UserError(f"cannot be read ({single_line(error):.200})", key=str(path)) from None
    index = _index(description.get("weights"), path)
    if description.get("sha256") != _digest(index, tensors):
        raise _damaged(path, "its checksum is wrong")
    sparse = _sparse(index, tensors.keys(), tensors.__getitem__, path)
    parts = {name + kind for name in sparse for kind in (BITMAP, VALUES)}
    return CompactTensors(sparse, {name: tensor for name, tensor in tensors.items() if name not in parts})


def read_sparse(file: TensorFile, look: Callable[[str, Tensor], None]) -> dict[str, CompactWeight]:
    """The sparse weights of a compact file, all of whose bytes are checked, without having the others in memory.

    Args:
        look: is given the name and each part of every tensor.

    Raises:
        UserError: as `read_compact_file`.
        OSError: it cannot be read.
    """
    description = _description(file.metadata, file.path)
    index = _index(description.get("weights"), file.path)
    hashed = _hash_of_index(index)
    for name in sorted(file.entries):
        entry = file.entries[name]
        hashed.update(_line(name, entry.dtype, entry.shape))
        for part in file.parts(name, _PART):
            hashed.update(bytes_of(part))
            look(name, part)
    if description.get("sha256") != hashed.hexdigest():
        raise _damaged(file.path, "its checksum is wrong")
    return _sparse(index, file.entries.keys(), file.read, file.path)


def _sparse(
    index: Index, names: Collection[str], read: Callable[[str], Tensor], path: Path
) -> dict[str, CompactWeight]:
    """The weights of an index, with what `read` gives for the names of their tensors."""
    sparse = {}
    for name, (shape, block) in index.items():
        if name in names or not (name + BITMAP in names and name + VALUES in names):
            raise _damaged(path, f"it should hold {name:.100}{BITMAP} and {VALUES} alone")
        weight = CompactWeight(shape, block, read(name + BITMAP), read(name + VALUES))
        if (why := damage(weight)) is not None:
            raise _damaged(path, f"{name:.100} {why}")
        sparse[name] = weight
    return sparse


def _alone(tensor: Tensor) -> Tensor:
    """A tensor that shares no memory with another: safetensors refuses to save those."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _description(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What the metadata of a file say about it."""
    if KEY not in header:
        raise UserError("is no compact file", key=str(path), cure="give one that hydraprune export wrote")
    try:
        description = json.loads(header[KEY])
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise _damaged(path, "its description cannot be read")
    if description.get("version") != VERSION:
        theirs = single_line(description.get("version"))
        reason = f"is a compact file of version {theirs:.20}, and version {VERSION} is read"
        raise UserError(reason, key=str(path), cure="update hydraprune")
    return description


def _index(weights: Any, path: Path) -> Index:
    """Sparse weight -> its shape and the rows of a block."""
    try:
        index = {name: (*entry["shape"], entry["block"]) for name, entry in weights.items()}
    except (TypeError, KeyError, AttributeError):
        raise _damaged(path, "its list of weights cannot be read") from None
    for name, numbers in index.items():
        if len(numbers) != 3 or not all(type(number) is int for number in numbers):
            raise _damaged(path, f"its list of weights has no shape and block for {name:.100}")
    return {name: ((rows, columns), block) for name, (rows, columns, block) in index.items()}


def _digest(index: Index, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of name, block and shape of the sparse weights, and of name, type, shape and bytes of every tensor."""
    hashed = _hash_of_index(index)
    for name in sorted(tensors):
        hashed.update(_line(name, tensors[name].dtype, tensors[name].shape))
        hashed.update(bytes_of(tensors[name]))
    return str(hashed.hexdigest())


def _hash_of_index(index: Index) -> Any:
    hashed = hashlib.sha256()
    for name in sorted(index):
        shape, block = index[name]
        hashed.update(f"{name} {block} {_shown(shape)}\n".encode())
    return hashed


def _line(name: str, dtype: torch.dtype, shape: Sequence[int]) -> bytes:
    return f"{name} {_TYPES.get(dtype)} {_shown(shape)}\n".encode()


def _shown(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"is damaged: {why}", key=str(path), cure="export the model again")
