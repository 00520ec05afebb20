"""One linear layer, as the kernels compute it."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.packing import PackedLinear
from hydraprune.kernels.structures import Structures

# Tokens of a unit, as in tokens.h.
_UNIT = 16


class LinearKernel:
    """A packed linear layer in single precision; calls may run at the same time in several threads."""

    def __init__(self, packed: PackedLinear, compiled: Compiled, activation: str | None = None) -> None:
        self.packed = packed
        self.compiled = compiled
        self.activation = activation
        self._describe()

    def __call__(self, x: Tensor) -> Tensor:
        """activation(weight x + bias), float32 [..., outputs], of x [..., inputs].

        Raises:
            ValueError: x has another number of features.
            MemoryError: there is no memory.
        """
        if self._structures.moved():
            self._describe()
        outputs, inputs = self.packed.shape
        if x.shape[-1] != inputs:
            raise ValueError(f"{x.shape[-1]} features for a layer with {inputs} inputs")
        rows = x.detach().to(device="cpu", dtype=torch.float32).reshape(-1, inputs).contiguous()
        result = torch.empty(len(rows), outputs, dtype=torch.float32, device="cpu")
        status = ctypes.c_int32()
        self.compiled.functions.hydraprune_linear(
            ctypes.addressof(self._linear),
            rows.data_ptr(),
            result.data_ptr(),
            len(rows),
            torch.get_num_threads(),
            ctypes.byref(status),
        )
        if status.value:
            raise MemoryError(f"a linear layer of {len(rows)} tokens")
        return result.view(*x.shape[:-1], outputs)

    def tiles(self, x: Tensor) -> Tensor:
        """The same as within an encoder, where nothing is transposed, in one thread.

        Args:
            x: [tiles, inputs, width], the tokens of a tile side by side; width is a multiple of 16.

        Returns:
            float32 [tiles, outputs, width].

        Raises:
            ValueError: x has another shape.
        """
        if self._structures.moved():
            self._describe()
        outputs, inputs = self.packed.shape
        if x.dim() != 3 or x.shape[1] != inputs or x.shape[2] % _UNIT:
            raise ValueError(f"x is [tiles, {inputs}, a multiple of {_UNIT}], not {list(x.shape)}")
        given = x.detach().to(device="cpu", dtype=torch.float32).contiguous()
        result = torch.empty(len(x), outputs, x.shape[2], dtype=torch.float32, device="cpu")
        self.compiled.functions.hydraprune_linear_tiles(
            ctypes.addressof(self._linear), given.data_ptr(), result.data_ptr(), len(x), x.shape[2]
        )
        return result

    def _describe(self) -> None:
        self._structures = Structures()
        self._linear = self._structures.linear(self.packed, self.activation)
        self._structures.watch(self.packed.bias)
        for part in self.packed.parts[:1]:
            self._structures.watch(part.value)

    def __reduce__(self) -> tuple[type[LinearKernel], tuple[PackedLinear, Compiled, str | None]]:
        return LinearKernel, (self.packed, self.compiled, self.activation)
