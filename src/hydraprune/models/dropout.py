"""Drop-out that does not wait for random numbers.

On a CPU torch draws a whole random number for every value, one after the other, which takes up to
a fifth of a training step. Here four values share 64 random bits: a value is dropped with the
probability p rounded to a 65,536th, independently of the others, and what stays is scaled by the
inverse of the exact probability.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.sparsity import native_code as native

_LEVELS = 1 << 16
_ARGUMENTS = (*(ctypes.c_void_p,) * 3, ctypes.c_long, ctypes.c_int, ctypes.c_float, ctypes.c_int)
_NAMES = {torch.float32: "hydraprune_dropout_float32", torch.bfloat16: "hydraprune_dropout_bfloat16"}
_compiled: ctypes.CDLL | None = None


def use_compiled(folder: Path | None) -> bool:
    """Apply drop-out with compiled code from now on, kept in `folder`; None: with torch alone. Same bits.

    Returns:
        Whether compiled code is in use: False without a compiler.
    """
    global _compiled
    source = Path(__file__).with_name("dropout.c")
    functions = dict.fromkeys(_NAMES.values(), _ARGUMENTS)
    _compiled = None if folder is None else native.load(source, folder, functions)
    return _compiled is not None


def fast_dropout(values: Tensor, p: float, training: bool = True) -> Tensor:
    """`values` with each set to 0 with probability `p`, the rest scaled so that the expectation stays.

    Draws from torch's global generator of the CPU. On an accelerator it is torch's own drop-out.
    """
    dropped = round(p * _LEVELS)
    if not training or dropped == 0:
        return values
    if values.device.type != "cpu" or dropped == _LEVELS:
        return nn.functional.dropout(values, p)
    result: Tensor = _Dropout.apply(values, dropped)  # type: ignore[no-untyped-call]
    return result


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dropped: int) -> Tensor:
        count = values.numel()
        noise = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        ctx.dropped = dropped
        ctx.save_for_backward(noise)
        return _applied(values, noise, dropped)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (noise,) = ctx.saved_tensors
        return _applied(gradients[0], noise, ctx.dropped), None


def _applied(values: Tensor, noise: Tensor, dropped: int) -> Tensor:
    threshold, scale = dropped - _LEVELS // 2, _LEVELS / (_LEVELS - dropped)
    if _compiled is not None and values.dtype in _NAMES:
        values = values.contiguous()
        result = torch.empty_like(values)
        apply = getattr(_compiled, _NAMES[values.dtype])
        pointers = (values.data_ptr(), noise.data_ptr(), result.data_ptr())
        apply(*pointers, values.numel(), threshold, scale, torch.get_num_threads())
        return result
    keep = noise.view(torch.int16)[: values.numel()].view(values.shape) >= threshold
    return (values * keep).mul_(scale)


class FastDropout(nn.Dropout):
    """`nn.Dropout` by `fast_dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """The input, dropped out in training mode."""
        return fast_dropout(input, self.p, self.training)


def use_fast_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of `model`; it holds no weights, so nothing that is saved changes."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
