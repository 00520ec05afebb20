"""Fast dropout on a CPU: four values share one 64-bit random number.

PyTorch draws a whole random number per value on one thread, which takes up to a fifth of a training
step. Here each value uses 16 random bits: it is dropped, independently of the others, with the
probability p rounded to a multiple of 2^-16, and kept values are scaled by the inverse of the exact
probability of being kept. Compiled C code and PyTorch operations give the same bits.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.sparsity import native_code

# Values that 16 random bits can take.
_LEVELS = 1 << 16
_C_FUNCTIONS = {torch.float32: "hydraprune_dropout_float32", torch.bfloat16: "hydraprune_dropout_bfloat16"}
# x, noise, y: pointers; n: long; threshold: int; scale: float; threads: int.
_C_ARGUMENTS = (*(ctypes.c_void_p,) * 3, ctypes.c_long, ctypes.c_int, ctypes.c_float, ctypes.c_int)
_compiled: ctypes.CDLL | None = None


def use_compiled(folder: Path | None) -> bool:
    """Switch compiled code on or off for this process.

    Args:
        folder: where the compiled library is kept; None: PyTorch operations alone.

    Returns:
        Whether compiled code is in use: False without a C compiler.
    """
    global _compiled
    source = Path(__file__).with_name("dropout.c")
    functions = dict.fromkeys(_C_FUNCTIONS.values(), _C_ARGUMENTS)
    _compiled = None if folder is None else native_code.load(source, folder, functions)
    return _compiled is not None


def fast_dropout(values: Tensor, p: float, training: bool = True) -> Tensor:
    """Dropout: each value is set to 0 with probability `p`, and the rest scaled so that the expectation stays.

    Draws from PyTorch's global CPU generator. On an accelerator this is PyTorch's own dropout.
    """
    dropped_levels = round(p * _LEVELS)
    if not training or dropped_levels == 0:
        return values
    if values.device.type != "cpu" or dropped_levels == _LEVELS:
        return nn.functional.dropout(values, p)
    result: Tensor = _FastDropoutFunction.apply(values, dropped_levels)  # type: ignore[no-untyped-call]
    return result


class _FastDropoutFunction(torch.autograd.Function):
    """Keeps the random bits for the backward pass, which drops and scales the same values of the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dropped_levels: int) -> Tensor:
        draws = (values.numel() + 3) // 4
        noise = torch.empty(draws, dtype=torch.int64).random_(-(2**63), None)
        ctx.dropped_levels = dropped_levels
        ctx.save_for_backward(noise)
        return _drop(values, noise, dropped_levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (noise,) = ctx.saved_tensors
        return _drop(gradients[0], noise, ctx.dropped_levels), None


def _drop(values: Tensor, noise: Tensor, dropped_levels: int) -> Tensor:
    """Drop the values whose 16 bits of noise, read as a signed integer, are among the lowest `dropped_levels`."""
    threshold, scale = dropped_levels - _LEVELS // 2, _LEVELS / (_LEVELS - dropped_levels)
    if _compiled is not None and values.dtype in _C_FUNCTIONS:
        values = values.contiguous()
        result = torch.empty_like(values)
        function = getattr(_compiled, _C_FUNCTIONS[values.dtype])
        pointers = (values.data_ptr(), noise.data_ptr(), result.data_ptr())
        function(*pointers, values.numel(), threshold, scale, torch.get_num_threads())
        return result
    keep = noise.view(torch.int16)[: values.numel()].view(values.shape) >= threshold
    return (values * keep).mul_(scale)


class FastDropout(nn.Dropout):
    """`nn.Dropout` by `fast_dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Drops values in training mode only."""
        return fast_dropout(input, self.p, self.training)


def use_fast_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of `model`. They have no weights, so a saved model does not change."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
