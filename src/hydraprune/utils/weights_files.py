"""Whether the weights of a saved model are all there, by the headers of its files. Needs only the standard library."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hydraprune.utils.files import read_bytes

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


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            length = int.from_bytes(opened.read(8), "little")
            if not 0 < length <= min(size, _LARGEST_HEADER):
                return False
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return bool(8 + length + max(ends, default=0) == size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False
