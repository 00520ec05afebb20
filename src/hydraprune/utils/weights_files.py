"""The headers of a saved model's weight files: what they hold, and whether it is all there. Standard library only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from hydraprune.utils.files import read_bytes

# What is no tensor in a header.
METADATA = "__metadata__"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# A header has some hundred bytes for each tensor.
_LARGEST_HEADER = 1 << 27


def missing_weights(model: Path) -> str | None:
    """What of a saved model is missing: the name of the first file that is not there or not whole; None if nothing.

    Args:
        model: folder with safetensors files, as `save_pretrained` writes it.
    """
    for name in ("config.json", *_weights_of(model)):
        file = model / name
        if not file.is_file() or not file.stat().st_size or (file.suffix == ".safetensors" and not _is_whole(file)):
            return name
    return None


def _weights_of(model: Path) -> list[str]:
    """The files that hold the weights: one, or those that an index names."""
    if not (model / INDEX).is_file():
        return [WEIGHTS]
    try:
        named = json.loads(read_bytes(model / INDEX, _LARGEST_HEADER))["weight_map"].values()
        return sorted({str(name) for name in named})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"{INDEX}/weight_map"]


def loaded_files(model: Path) -> list[str]:
    """The safetensors files that are loaded from a folder: one, or those of its index; none where there is neither."""
    if (model / WEIGHTS).is_file():
        return [WEIGHTS]
    return _weights_of(model) if (model / INDEX).is_file() else []


def stored_types(file: Path) -> list[tuple[str, str]]:
    """(name, type as the header writes it, such as F32) of every tensor in a safetensors file; nothing else is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no header of a safetensors file.
    """
    try:
        return [(name, str(dict(entry)["dtype"])) for name, entry in _header(file)[0]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file.name} has no header of a safetensors file") from error


def read_header(opened: BinaryIO) -> tuple[list[tuple[str, Any]], int, int]:
    """The header of a safetensors file that was just opened.

    Returns:
        (name and entry of each tensor and of the metadata, a name as often as it occurs, where an entry is a list of
        pairs as well; where the header ends; size of the file)

    Raises:
        OSError: the file cannot be read.
        ValueError, RecursionError: it has no such header.
    """
    size = os.fstat(opened.fileno()).st_size
    length = int.from_bytes(opened.read(8), "little")
    if not 0 < length <= min(size, _LARGEST_HEADER):
        raise ValueError("no header")
    # A dict would keep one of two entries of the same name.
    entries = json.loads(opened.read(length), object_pairs_hook=list)
    return entries, 8 + length, size


def _header(file: Path) -> tuple[list[tuple[str, Any]], int, int]:
    """As `read_header`, without the metadata."""
    with file.open("rb") as opened:
        entries, start, size = read_header(opened)
    return [(name, entry) for name, entry in entries if name != METADATA], start, size


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        tensors, start, size = _header(file)
        ends = [dict(entry)["data_offsets"][1] for _, entry in tensors]
        return bool(start + max(ends, default=0) == size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False
