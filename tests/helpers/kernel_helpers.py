"""Kernels compiled for each kind of processor that this one can stand for, and sparse models for them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import nn

from hydraprune.kernels.compiled import NATIVE, Compiled, compile_kernels
from hydraprune.sparsity import native_code

FOLDER = Path(os.environ["HYDRAPRUNE_CACHE"]) / "native"
TARGETS: dict[str, tuple[str, ...]] = {
    "native": NATIVE,
    "AVX-512 without BF16": ("-march=native", "-mno-avx512bf16"),
    "AVX2": ("-march=x86-64-v3",),
    "portable": (),
    "strips of NEON": ("-DWIDE_STRIPS",),
}


def skip_unless_runs(target: str) -> None:
    """Skip the test where this machine cannot compile or run code for one of `TARGETS`."""
    if native_code.compiler() is None:
        pytest.skip("no C compiler")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    needed = {"AVX2": "avx2", "AVX-512 without BF16": "avx512bw"}.get(target, "")
    if needed not in flags:
        pytest.skip(f"this processor has no {needed}")


@lru_cache
def kernels(target: str = "native") -> Compiled:
    """The kernels for one of `TARGETS`; skips the test where this machine cannot compile or run them."""
    skip_unless_runs(target)
    return compile_kernels(FOLDER, TARGETS[target])


def sparse_weight(outputs: int, inputs: int, rows: int, density: float) -> torch.Tensor:
    """A weight from torch's global generator of which blocks of `rows` x 1 are left with a probability."""
    groups = -(-outputs // rows)
    keep = (torch.rand(groups, inputs) < density).repeat_interleave(rows, 0)[:outputs]
    return torch.randn(outputs, inputs) * keep


@torch.no_grad()
def make_sparse(model: nn.Module, rows: int = 4, density: float = 0.2) -> nn.Module:
    """Give every parameter of a model a random value of a size that counts, and zeros to the layers of its encoder."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and ("layer" in name or ".h." in name) and "relative" not in name:
            weight = sparse_weight(*parameter.shape, rows, density)
            parameter.copy_(weight / max(1.0, (density * parameter.shape[1]) ** 0.5))
        elif "norm" in name.lower() and name.endswith("weight"):
            parameter.copy_(1 + 0.2 * torch.randn(parameter.shape))
        else:
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The norm of the difference relative to the norm of what is wanted."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm().clamp_min(1e-30))
