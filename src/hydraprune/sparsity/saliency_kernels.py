"""The inner loop of scoring: |weight * gradient| summed over cells, into a decaying score state.

It reads every weight and every gradient, so its cost is that of memory traffic. Where blocks are
one column wide (all N:M patterns too) it works layer by layer, which keeps the products in the
processor's cache, or in one pass of compiled code, which adds in the same order and gives the same
bits. On an accelerator it works on all layers at once, in few launches.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hydraprune.sparsity import native_code as native
from hydraprune.sparsity.patterns import ColumnSums, Pattern, shape_of
from hydraprune.sparsity.precision import at_least_single

# The compiled code, and the arguments of its functions.
SOURCE = Path(__file__).with_name("saliency_kernels.c")
_ARGUMENTS = (*(ctypes.c_void_p,) * 3, *(ctypes.c_long,) * 3, *(ctypes.c_float,) * 2, *(ctypes.c_int,) * 2)
FUNCTIONS = {"hydraprune_products": _ARGUMENTS}
_compiled: ctypes.CDLL | None = None


def use_compiled(folder: Path | None) -> bool:
    """Score with compiled code, cached in `folder`, from now on; None: with PyTorch alone, which is the default.

    Returns:
        Whether compiled code is in use: False without a compiler.
    """
    global _compiled
    _compiled = None if folder is None else native.load(SOURCE, folder, FUNCTIONS)
    return _compiled is not None


def accumulate(
    state: list[Tensor] | None,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    pattern: Pattern,
    decay: float,
) -> list[Tensor]:
    """`decay` * state + the cells of |weight * gradient|, per layer; without a state, the cells alone.

    Args:
        state: per layer as this function returned it, written in place; None at first.
        weights, gradients: per layer the view [rows, positions, columns].
    """
    if weights and weights[0].device.type not in ("cpu", "meta"):
        return _together(state, weights, gradients, pattern, decay)
    sums = [pattern.column_sums(shape_of(weight)) for weight in weights]
    olds: Sequence[Tensor | None] = [None] * len(weights) if state is None else state
    return [
        _pooled(old, weight, gradient, pattern, decay)
        if how is None or not (_plain(weight) and _plain(gradient))
        else _by_columns(old, weight, gradient, how, decay)
        for old, weight, gradient, how in zip(olds, weights, gradients, sums, strict=True)
    ]


def totals(weights: Sequence[Tensor], gradients: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
    """Per layer the sum of weight * gradient over each cell, signed, float32: what scaling the cell would change.

    Args:
        weights, gradients: per layer the view [rows, positions, columns].
    """
    pairs = zip(weights, gradients, strict=True)
    return [pattern.sum_cells(weight.float() * gradient.float()) for weight, gradient in pairs]


def _plain(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.dtype == torch.float32


def _pooled(old: Tensor | None, weight: Tensor, gradient: Tensor, pattern: Pattern, decay: float) -> Tensor:
    cells = pattern.to_cells((at_least_single(weight) * at_least_single(gradient)).abs_().float())
    return cells if old is None else old.mul_(decay).add_(cells)


def _by_columns(old: Tensor | None, weight: Tensor, gradient: Tensor, how: ColumnSums, decay: float) -> Tensor:
    if _compiled is not None and weight.device.type == "cpu":
        return _in_one_pass(_compiled, old, weight, gradient, how, decay)
    products = torch.mul(weight, gradient).abs_().view(-1, how.rows, weight[0].numel())
    cells = products[:, 0]
    for row in range(1, how.rows):
        cells.add_(products[:, row])
    if how.divisor != 1:
        cells.div_(how.divisor)
    # A copy, not a view that would keep all the products.
    return cells.reshape(how.cells).clone() if old is None else old.mul_(decay).add_(cells.reshape(how.cells))


def _in_one_pass(
    library: ctypes.CDLL, old: Tensor | None, weight: Tensor, gradient: Tensor, how: ColumnSums, decay: float
) -> Tensor:
    state = torch.empty(how.cells) if old is None else old
    columns = weight[0].numel()
    library.hydraprune_products(
        weight.data_ptr(),
        gradient.data_ptr(),
        state.data_ptr(),
        weight.numel() // (how.rows * columns),
        how.rows,
        columns,
        decay,
        how.divisor,
        int(old is None),
        torch.get_num_threads(),
    )
    return state


def _together(
    state: list[Tensor] | None,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    pattern: Pattern,
    decay: float,
) -> list[Tensor]:
    products = torch._foreach_mul([at_least_single(w) for w in weights], [at_least_single(g) for g in gradients])
    torch._foreach_abs_(products)
    cells = [pattern.to_cells(product.float()) for product in products]
    if state is None:
        return cells
    torch._foreach_mul_(state, decay)
    torch._foreach_add_(state, cells)
    return state
