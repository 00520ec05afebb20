"""The precision of sums over many terms and of solvers."""

from __future__ import annotations

import torch


def wide(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64
