"""Crops of the masks of a saved model, small enough to show each weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

# Rows and columns of a crop: enough to show the pattern, few enough to show each weight.
ROWS, COLUMNS = 24, 40


@dataclass(frozen=True)
class MaskCrop:
    """A crop of one layer's mask.

    Args:
        pruner: name of the pruner that made it.
        pattern: name of its pattern.
        weight: name of the layer's weight.
        top, left: position of the crop in the weight, seen as a matrix.
        kept: bool [rows, columns], True where a weight is not zero.
        sparsity: of the whole layer.
    """

    pruner: str
    pattern: str
    weight: str
    top: int
    left: int
    kept: NDArray[np.bool_]
    sparsity: float


def mask_crops(model: Path, parts: Mapping[str, Any]) -> list[MaskCrop]:
    """A typical mask crop for each pruner of a run, always the same.

    It is taken from the layer whose sparsity is nearest to the pruner's, where its own sparsity is
    nearest to the layer's.

    Args:
        model: folder with safetensors files.
        parts: as in a report.

    Returns:
        No crop for pruners whose layers are not found in the model.
    """
    found = []
    for name, part in parts.items():
        if not {"pattern", "weights", "sparsity"} <= set(part):  # an older report
            continue
        masks = list(_masks(model, part["weights"]))
        if masks:
            weight, kept = min(masks, key=lambda mask: abs(1 - mask[1].mean() - part["sparsity"]))
            found.append(_typical_crop(name, part["pattern"], weight, kept))
    return found


def _masks(model: Path, weights: list[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    found = []
    # A pipe or a device of that name is no file: opening it may never end.
    for file in sorted(path for path in model.glob("*.safetensors") if path.is_file()):
        try:
            with safe_open(file, framework="np") as tensors:
                names = set(tensors.keys())
                read = [(name, tensors.get_tensor(name)) for name in weights if name in names]
        except (OSError, SafetensorError, TypeError, AttributeError):  # incomplete, or of a type that numpy lacks
            continue
        found += [(name, _matrix(weight) != 0) for name, weight in read if _is_read(weight)]
    return found


def _is_read(weight: NDArray[Any]) -> bool:
    """Whether it is a matrix of numbers of numpy's own; onnx brings others, on which a page must not depend."""
    return weight.ndim > 1 and weight.size > 0 and weight.dtype.kind in "fiub"


def _matrix(weight: NDArray[Any]) -> NDArray[Any]:
    return weight.reshape(len(weight), -1)


def _typical_crop(pruner: str, pattern: str, weight: str, kept: NDArray[np.bool_]) -> MaskCrop:
    sparsity = 1 - float(kept.mean())
    height, width = min(ROWS, kept.shape[0]), min(COLUMNS, kept.shape[1])
    corners = [
        (top, left)
        for top in range(0, kept.shape[0] - height + 1, height)
        for left in range(0, kept.shape[1] - width + 1, width)
    ]
    top, left = min(
        corners, key=lambda at: abs(1 - kept[at[0] : at[0] + height, at[1] : at[1] + width].mean() - sparsity)
    )
    return MaskCrop(pruner, pattern, weight, top, left, kept[top : top + height, left : left + width], sparsity)
