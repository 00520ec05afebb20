"""The precision of products, of sums over many terms, and of solvers."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it has 16 bits or fewer, in which small products are zero and sums overflow."""
    return tensor.float() if tensor.element_size() < 4 else tensor
