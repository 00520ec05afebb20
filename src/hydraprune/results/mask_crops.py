"""Parts of real masks, small enough to look at, read from a saved model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

# Of a picture: enough rows and columns for a pattern to be seen, and few enough to see each weight.
ROWS, COLUMNS = 24, 40


@dataclass(frozen=True)
class MaskPart:
    """A part of one layer's mask.

    Args:
        part: name of the pruner that made it.
        weight: name of the layer's weight.
        top, left: place of the part in the weight.
        kept: rows x columns, true where a weight is not zero.
        sparsity: of the whole layer.
    """

    part: str
    pattern: str
    weight: str
    top: int
    left: int
    kept: NDArray[np.bool_]
    sparsity: float


def mask_parts(model: Path, parts: Mapping[str, Any], rows: int = ROWS, columns: int = COLUMNS) -> list[MaskPart]:
    """One part of a mask for each pruner of a run.

    Of all layers the one whose sparsity is nearest to the pruner's, and of this layer the part whose sparsity is
    nearest to the layer's: neither the emptiest nor the fullest, and always the same.

    Args:
        model: folder that holds safetensors files.
        parts: as in a report.

    Returns:
        Nothing for a model that is not there or whose layers are not there under their names.
    """
    found = []
    for name, part in parts.items():
        if not {"pattern", "weights", "sparsity"} <= set(part):  # an older report
            continue
        masks = list(_masks(model, part["weights"]))
        if masks:
            weight, kept = min(masks, key=lambda mask: abs(1 - mask[1].mean() - part["sparsity"]))
            found.append(_typical(name, part["pattern"], weight, kept, rows, columns))
    return found


def _masks(model: Path, weights: list[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    found = []
    for file in sorted(model.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as tensors:
                names = set(tensors.keys())
                found += [(name, _matrix(tensors.get_tensor(name)) != 0) for name in weights if name in names]
        except (OSError, SafetensorError, TypeError, AttributeError):  # cut short, or of a type that numpy lacks
            continue
    return found


def _matrix(weight: NDArray[Any]) -> NDArray[Any]:
    return weight.reshape(len(weight), -1)


def _typical(part: str, pattern: str, weight: str, kept: NDArray[np.bool_], rows: int, columns: int) -> MaskPart:
    sparsity = 1 - float(kept.mean())
    height, width = min(rows, kept.shape[0]), min(columns, kept.shape[1])
    places = [
        (top, left)
        for top in range(0, kept.shape[0] - height + 1, height)
        for left in range(0, kept.shape[1] - width + 1, width)
    ]
    top, left = min(
        places, key=lambda at: abs(1 - kept[at[0] : at[0] + height, at[1] : at[1] + width].mean() - sparsity)
    )
    return MaskPart(part, pattern, weight, top, left, kept[top : top + height, left : left + width], sparsity)
