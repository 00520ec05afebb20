"""The files that a finished run leaves, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

W = TypeVar("W", bound=Tensor)


def run_folders(root: Path, pattern: str) -> list[Path]:
    """The folders of the runs of that pattern below `root`."""
    return sorted(path.parent for path in root.glob(f"*/*/{pattern}/*/report.json"))


def write_whole_model(folder: Path) -> None:
    """The files by which a finished run's model is known to be whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    save_file({"w": torch.zeros(2, 2)}, folder / "model.safetensors")


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_of(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load_file(folder / "model" / "model.safetensors")
    return weights


def encoder_weights(weights: Mapping[str, W]) -> dict[str, W]:
    """The matrices of the encoder's layers."""
    return {name: w for name, w in weights.items() if ".layer." in name and name.endswith("weight") and w.ndim == 2}
