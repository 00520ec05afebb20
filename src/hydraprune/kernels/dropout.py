"""Fast dropout on a CPU: random bits by counter, in place of a generator that draws number after number.

PyTorch draws a whole random number per value on one thread, which takes up to a fifth of a training
step. Here a call draws one number, its key; the bits of a value follow from the key and the value's
index (random_bits.h), so that the backward pass finds them again. Of 32 bits 16 count: a value is
dropped, independently of the others, with the probability p rounded to a multiple of 2^-16, and kept
values are scaled by the inverse of the exact probability of being kept. Compiled C code and PyTorch
operations give the same bits.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.sparsity import native_code

# Values that 16 random bits can take.
_LEVELS = 1 << 16
_C_FUNCTIONS = {torch.float32: "hydraprune_dropout_float32", torch.bfloat16: "hydraprune_dropout_bfloat16"}
# x, y: pointers; n: long; the key's halves; levels: int; scale: float; threads: int.
_C_ARGUMENTS = (
    *(ctypes.c_void_p,) * 2,
    ctypes.c_long,
    *(ctypes.c_uint32,) * 2,
    ctypes.c_int,
    ctypes.c_float,
    ctypes.c_int,
)
_MIX_FIRST, _MIX_SECOND = 0x7FEB352D, 0x846CA68B
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


@dataclass(frozen=True)
class DropoutKey:
    """Which values one call of dropout drops.

    Args:
        first, second: 32 random bits each.
        levels: of 2^16, how many of the values of 16 bits mean that a value is dropped.
    """

    first: int
    second: int
    levels: int

    @property
    def scale(self) -> float:
        """The factor of kept values."""
        return _LEVELS / (_LEVELS - self.levels)


def drops_all(p: float) -> bool:
    """Whether dropout with probability `p` leaves no value: it then has no key."""
    return round(p * _LEVELS) == _LEVELS


def draw_key(p: float) -> DropoutKey | None:
    """The key of a call of dropout with probability `p`, drawn from PyTorch's global CPU generator.

    None, and nothing drawn, where no value or every value is dropped.
    """
    levels = round(p * _LEVELS)
    if levels in (0, _LEVELS):
        return None
    number = int(torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None))
    return DropoutKey(number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF, levels)


def fast_dropout(values: Tensor, p: float, training: bool = True) -> Tensor:
    """Dropout: each value is set to 0 with probability `p`, and the rest scaled so that the expectation stays.

    Draws from PyTorch's global CPU generator. On an accelerator this is PyTorch's own dropout.
    """
    if not training or round(p * _LEVELS) == 0:
        return values
    if values.device.type != "cpu":
        return nn.functional.dropout(values, p)
    key = draw_key(p)
    if key is None:
        return nn.functional.dropout(values, p)
    result: Tensor = _FastDropoutFunction.apply(values, key)  # type: ignore[no-untyped-call]
    return result


class _FastDropoutFunction(torch.autograd.Function):
    """The backward pass drops and scales the same values of the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, key: DropoutKey) -> Tensor:
        ctx.key = key
        return _drop(values, key)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _drop(gradients[0], ctx.key), None


def _drop(values: Tensor, key: DropoutKey) -> Tensor:
    if _compiled is not None and values.dtype in _C_FUNCTIONS:
        values = values.contiguous()
        result = torch.empty_like(values)
        function = getattr(_compiled, _C_FUNCTIONS[values.dtype])
        number = (values.numel(), key.first, key.second, key.levels, key.scale)
        function(values.data_ptr(), result.data_ptr(), *number, torch.get_num_threads())
        return result
    return (values * _kept(key, values.numel()).view(values.shape)).mul_(key.scale)


def _kept(key: DropoutKey, count: int) -> Tensor:
    """bool [count]: whether the value of that index is kept; as in random_bits.h, whose shifts fill with zeros."""
    x = torch.arange(count, dtype=torch.int32).add_(_signed(key.first))
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
    x.mul_(_signed(_MIX_FIRST)).bitwise_xor_(_signed(key.second))
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.mul_(_signed(_MIX_SECOND))
    # The upper 16 bits of the result are those of x: what is added to them by the last shift is zero.
    return (x >> 16).bitwise_and_(0xFFFF) >= key.levels


def _signed(bits: int) -> int:
    """32 bits as the int32 that they are."""
    return bits - (1 << 32) if bits >> 31 else bits


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
