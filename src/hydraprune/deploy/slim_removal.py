"""What can be removed from the weights of one layer without changing its outputs: channels and heads.

A unit can go if what it adds to the output is zero or constant; a constant is added to the bias of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Removal:
    """Which units of a layer stay.

    Args:
        kept: their numbers, ascending; at least one.
        bias: float64 [outputs], what the removed units add to every output.
    """

    kept: tuple[int, ...]
    bias: Tensor


def removable_channels(
    ffn_in: Tensor, bias: Tensor, activation: Callable[[Tensor], Tensor], ffn_out: Tensor
) -> Removal:
    """The channels of ffn_out(activation(ffn_in(x) + bias)) that stay.

    A channel goes if its row in `ffn_in` is zero, so that it is activation(bias) for every input, or if its column in
    `ffn_out` is zero.

    Args:
        ffn_in: [channels, inputs].
        bias: [channels].
        activation: computed value by value.
        ffn_out: [outputs, channels].
    """
    constants = activation(bias)
    is_constant = (ffn_in == 0).all(1) & constants.isfinite()
    is_unused = (ffn_out == 0).all(0)
    return _removal(is_constant | is_unused, constants.unsqueeze(1), ffn_out.unsqueeze(2))


def removable_heads(value: Tensor, bias: Tensor, attention_output: Tensor, heads: int) -> Removal:
    """The heads of an attention that stay.

    A head goes if its rows in `value` are zero, so that it is `bias` for every input, since the weights of a softmax
    sum to 1; or if its columns in `attention_output` are zero.

    Args:
        value: [heads * size, inputs].
        bias: [heads * size].
        attention_output: [outputs, heads * size].
    """
    constants = bias.reshape(heads, -1)
    columns = attention_output.reshape(len(attention_output), heads, -1)
    is_constant = (value == 0).reshape(heads, -1).all(1) & constants.isfinite().all(1)
    is_unused = (columns == 0).all(2).all(0)
    return _removal(is_constant | is_unused, constants, columns)


def _removal(goes: Tensor, constants: Tensor, columns: Tensor) -> Removal:
    """The removal of the units that `goes` marks, bool [units], but not of all.

    Args:
        constants: [units, size], the values of a unit that does not depend on the input; any for an unused one.
        columns: [outputs, units, size].
    """
    if bool(goes.all()):
        goes = goes.clone()
        goes[0] = False
    bias = torch.einsum("us,ous->o", constants[goes].double(), columns[:, goes].double())
    return Removal(tuple((~goes).nonzero().flatten().tolist()), bias)
