"""The structures of the compiled kernels, with the fields of encoder.h, block_rows.h, and what they point to."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hydraprune.kernels.packing import PackedLinear

# Values of `enum activation` in vectors.h.
ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}
_POINTER = ctypes.c_void_p
_INT = ctypes.c_int32


class CPart(ctypes.Structure):
    _fields_ = (
        ("rows", _INT),
        ("groups", _INT),
        ("row", _POINTER),
        ("start", _POINTER),
        ("column", _POINTER),
        ("value", _POINTER),
    )


class CLinear(ctypes.Structure):
    _fields_ = (
        ("outputs", _INT),
        ("inputs", _INT),
        ("parts", _INT),
        ("activation", _INT),
        ("part", _POINTER),
        ("bias", _POINTER),
    )


class CNorm(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER))


class CLayer(ctypes.Structure):
    _fields_ = (
        ("heads", _INT),
        ("head_size", _INT),
        *((name, CLinear) for name in ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")),
        ("attention_norm", CNorm),
        ("ffn_norm", CNorm),
    )


class CEncoder(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("layers", "hidden", "embedding", "words", "positions", "types")),
        ("longest", _INT),
        ("first_position", _INT),
        ("padding", _INT),
        ("epsilon", ctypes.c_float),
        *((name, _POINTER) for name in ("layer", "word", "position", "type")),
        ("embedding_norm", CNorm),
        ("projection", _POINTER),
        ("relative", _POINTER),
        ("reach", _INT),
    )


@dataclass
class Structures:
    """Makes structures, and keeps what they point to."""

    kept: list[Any] = field(default_factory=list)
    _addresses: list[tuple[Tensor, int]] = field(default_factory=list)

    def moved(self) -> bool:
        """Whether a watched tensor lies in other memory than before, as after `share_memory_`."""
        return any(tensor.data_ptr() != address for tensor, address in self._addresses)

    def watch(self, tensor: Tensor | None) -> None:
        """Look at this tensor in `moved`; to look at all of them takes longer than a short text."""
        if tensor is not None:
            self._addresses.append((tensor, tensor.data_ptr()))

    def pointer(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        assert tensor.is_contiguous()
        assert tensor.device.type == "cpu"
        self.kept.append(tensor)
        return tensor.data_ptr()

    def address(self, structure: Any) -> int:
        self.kept.append(structure)
        return ctypes.addressof(structure)

    def linear(self, packed: PackedLinear, activation: str | None = None) -> CLinear:
        parts = (CPart * len(packed.parts))(
            *(
                CPart(part.size, len(part.rows), *map(self.pointer, (part.rows, part.start, part.column, part.value)))
                for part in packed.parts
            )
        )
        outputs, inputs = packed.shape
        return CLinear(
            outputs,
            inputs,
            len(parts),
            ACTIVATIONS[activation],
            self.address(parts),
            self.pointer(packed.bias),
        )

    def norm(self, weight: Tensor, bias: Tensor) -> CNorm:
        return CNorm(self.pointer(weight), self.pointer(bias))
