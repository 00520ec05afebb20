"""Layouts: which axis of a weight is which. Every prunable weight is seen as [rows, positions, columns].

Rows are output channels, columns input channels, positions the places of a convolution kernel (one
for linear layers). Patterns see this view only, so a transposed or convolutional weight needs no
special case in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from hydraprune.sparsity.shards import held


class Layout(Protocol):
    """How one kind of module stores its weight."""

    # Whether each output is a sum over one row of inputs: not so in a convolution.
    linear: bool

    def view(self, weight: Tensor) -> Tensor:
        """The weight as [rows, positions, columns]; shares memory where torch can."""

    def weight(self, view: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `view`, for a weight of `shape`."""


@dataclass(frozen=True)
class LinearLayout:
    """`nn.Linear`: [out, in]."""

    linear = True

    def view(self, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1)

    def weight(self, view: Tensor, shape: torch.Size) -> Tensor:
        return view.reshape(shape)


@dataclass(frozen=True)
class TransposedLayout:
    """Hugging Face's `Conv1D` (GPT-2): a linear layer stored as [in, out]."""

    linear = True

    def view(self, weight: Tensor) -> Tensor:
        return weight.t().unsqueeze(1)

    def weight(self, view: Tensor, shape: torch.Size) -> Tensor:
        return view.squeeze(1).t().reshape(shape)


@dataclass(frozen=True)
class ConvLayout:
    """`nn.Conv1d` and `nn.Conv2d`: [out, in, *kernel]; input channels are the fastest axis of the view."""

    linear = False

    def view(self, weight: Tensor) -> Tensor:
        return weight.flatten(2).transpose(1, 2)

    def weight(self, view: Tensor, shape: torch.Size) -> Tensor:
        return view.transpose(1, 2).reshape(shape)


@dataclass(frozen=True)
class JointLayout:
    """A joint projection whose parts (query, key and value) lie one after the other: each part is a position.

    Row i of the view holds row i of every part, so that a unit of rows is one of each part.

    Args:
        layout: of the module.
        parts: how many; they divide its rows.
    """

    layout: Layout
    parts: int
    linear = False

    def view(self, weight: Tensor) -> Tensor:
        rows = self.layout.view(weight).squeeze(1)
        return rows.reshape(self.parts, -1, rows.shape[1]).transpose(0, 1)

    def weight(self, view: Tensor, shape: torch.Size) -> Tensor:
        return self.layout.weight(view.transpose(0, 1).reshape(-1, 1, view.shape[2]), shape)


@dataclass(frozen=True)
class ExpertsLayout:
    """The weights of experts in one parameter, [experts, out, in], or [experts, in, out] if `transposed`.

    The rows of one expert come after those of another.
    """

    transposed: bool = False
    linear = True

    def view(self, weight: Tensor) -> Tensor:
        return (weight.transpose(1, 2) if self.transposed else weight).flatten(0, 1).unsqueeze(1)

    def weight(self, view: Tensor, shape: torch.Size) -> Tensor:
        experts, first, second = shape
        if not self.transposed:
            return view.reshape(shape)
        return view.reshape(experts, second, first).transpose(1, 2)


LAYOUTS: dict[str, Layout] = {
    "Linear": LinearLayout(),
    "Conv1d": ConvLayout(),
    "Conv2d": ConvLayout(),
    # By name: the core must not import transformers to know its one odd layer.
    "Conv1D": TransposedLayout(),
}


# Of weights that are chosen by their parameter's name, `Layers.packed`: name -> (layout, dimensions).
PACKED: dict[str, tuple[Layout, int]] = {
    "linear": (LinearLayout(), 2),
    "transposed": (TransposedLayout(), 2),
    "experts": (ExpertsLayout(), 3),
    "transposed_experts": (ExpertsLayout(transposed=True), 3),
}


def module_type(module: nn.Module) -> str | None:
    """The name in `LAYOUTS` that `module` is an instance of (subclasses included), or None."""
    for ancestor in type(module).__mro__:
        if ancestor.__name__ in LAYOUTS:
            return ancestor.__name__
    return None


def layer_of(parameter: str) -> str:
    """The module name of a weight's parameter name: `encoder.query` of `encoder.query.weight`.

    Another parameter, such as `in_proj_weight`, keeps its name: a module may hold several.
    """
    return "" if parameter == "weight" else parameter.removesuffix(".weight")


def model_block_of(layer: str) -> str:
    """The block of the model that a layer is in: its name up to the first number; empty if it has none.

    `encoder.layer.3` for `encoder.layer.3.output.dense`.
    """
    match = re.match(r".*?\.\d+(?=\.)|\d+(?=\.)", layer)
    return match.group(0) if match else ""


@dataclass(frozen=True)
class Weight:
    """One weight that a pruner may mask.

    Args:
        name: of the parameter, without the words of wrappers.
        parameter: the weight.
        layout: which of its axes is which.
        groups: of a convolution: each has as many input channels of its own as the view has columns.
        packed: matrices whose rows lie one after the other in a packed weight, as of experts; 0: it is not packed.
        model: that it was chosen from, for checks whether it still holds the parameter; None: not checked.
    """

    name: str
    parameter: nn.Parameter
    layout: Layout
    groups: int = 1
    packed: int = 0
    model: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def layer(self) -> str:
        """The name of the module that holds it."""
        return layer_of(self.name)

    def view(self, tensor: Tensor) -> Tensor:
        """`tensor` (shaped like `held`) as [rows, positions, columns]."""
        return self.layout.view(tensor)

    def unview(self, view: Tensor) -> Tensor:
        """The inverse of `view`: shaped like `held`."""
        return self.layout.weight(view, self.held.shape)

    @property
    def held(self) -> Tensor:
        """The weight without a graph; of a sharded one the rows that this process holds."""
        return held(self.parameter.detach())

    @property
    def gradient(self) -> Tensor | None:
        """The gradient of `held`, if there is one."""
        return None if self.parameter.grad is None else held(self.parameter.grad)

    @property
    def held_shape(self) -> tuple[int, int, int]:
        """(rows, positions, columns) of `held`."""
        return self._view_shape(self.held.shape)

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(rows, positions, columns) of the whole weight."""
        return self._view_shape(self.parameter.shape)

    def _view_shape(self, shape: torch.Size) -> tuple[int, int, int]:
        rows, positions, columns = self.layout.view(torch.empty(shape, device="meta")).shape
        return rows, positions, columns
