"""One layer of an encoder in training: forward and backward over the live blocks of its weights."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hydraprune.kernels.compiled import NATIVE
from hydraprune.kernels.dropout import DropoutKey
from hydraprune.kernels.packing import PackedLinear, Part
from hydraprune.kernels.structures import ACTIVATIONS, CLayer, Structures
from hydraprune.sparsity import native_code

SOURCE = Path(__file__).with_name("training.c")
_FLAGS = ("-ffp-contract=fast", "-fno-math-errno")
# Rows of a block, as in live_blocks.h.
ROWS = 4
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32
_BATCH = (*(_POINTER,) * 3, *(ctypes.c_int,) * 2)
FUNCTIONS = {
    "hydraprune_layer_forward": (*_BATCH, *(_POINTER,) * 3, ctypes.c_int, _POINTER),
    "hydraprune_layer_backward": (*_BATCH, *(_POINTER,) * 5, ctypes.c_int, _POINTER),
    "hydraprune_layer_room": (*(_POINTER,) * 2, ctypes.c_int, *(_POINTER,) * 2),
}
LINEARS = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


class _CTrainedLayer(ctypes.Structure):
    _fields_ = (
        ("layer", CLayer),
        ("weight", _POINTER * len(LINEARS)),
        ("attention_epsilon", ctypes.c_float),
        ("ffn_epsilon", ctypes.c_float),
        ("activation", _INT),
    )


class _CDropout(ctypes.Structure):
    _fields_ = (("key", ctypes.c_uint32 * 2), ("levels", _INT), ("scale", ctypes.c_float))


class _CDropouts(ctypes.Structure):
    _fields_ = tuple((name, _CDropout) for name in ("weights", "attention", "ffn"))


class _CGradients(ctypes.Structure):
    _fields_ = (
        ("weight", _POINTER * len(LINEARS)),
        ("bias", _POINTER * len(LINEARS)),
        ("norm_weight", _POINTER * 2),
        ("norm_bias", _POINTER * 2),
    )


def compile_training(folder: Path, target: Sequence[str] = NATIVE) -> ctypes.CDLL:
    """The kernels, compiled into `folder` unless they are there already for this kind of processor.

    Args:
        target: as of `compile_kernels`.

    Raises:
        OSError, AttributeError, SubprocessError: they cannot be compiled or loaded here.
    """
    return native_code.build(SOURCE, folder, FUNCTIONS, (*target, *_FLAGS))


@dataclass(frozen=True)
class Dropouts:
    """What one forward pass of a layer drops; None: nothing.

    Args:
        weights: of the attention weights [examples, heads, tokens, tokens].
        attention, ffn: of the outputs of attention and of the feed-forward network, [examples, tokens, hidden].
    """

    weights: DropoutKey | None = None
    attention: DropoutKey | None = None
    ffn: DropoutKey | None = None


@dataclass(frozen=True)
class LayerParameters:
    """The parameters of a layer; all float32, contiguous, on the CPU.

    Args:
        weights: [outputs, inputs] each, of query, key, value, attention output, and the two of the feed-forward
            network; outputs are multiples of 4.
        biases: of the same layers, [outputs].
        norm_weights, norm_biases: [hidden], of the normalisations behind attention and feed-forward network.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    norm_weights: tuple[Tensor, Tensor]
    norm_biases: tuple[Tensor, Tensor]

    def flat(self) -> list[Tensor]:
        """All of them, field by field."""
        return [tensor for field in fields(self) for tensor in getattr(self, field.name)]


@dataclass(frozen=True)
class LayerShape:
    """What a layer computes beside its parameters.

    Args:
        heads: of attention.
        activation: of the feed-forward network, a key of `structures.ACTIVATIONS`.
        epsilons: of the two normalisations.
    """

    heads: int
    activation: str
    epsilons: tuple[float, float]


def live_blocks(live: Tensor) -> PackedLinear:
    """Blocks of 4 rows and one column that hold a live weight; their values are filled in by the forward pass.

    Args:
        live: bool [outputs, inputs]; outputs are a multiple of 4.
    """
    outputs, inputs = live.shape
    groups = live.view(outputs // ROWS, ROWS, inputs).any(1)
    count = np.count_nonzero(groups.numpy(), axis=1)
    start = torch.zeros(len(count) + 1, dtype=torch.int32)
    start[1:] = torch.from_numpy(count).cumsum(0)
    columns = groups.nonzero()[:, 1].int().contiguous()
    rows = torch.arange(outputs, dtype=torch.int32).view(-1, ROWS)
    part = Part(rows, start, columns, torch.zeros(len(columns), ROWS))
    return PackedLinear((outputs, inputs), (part,), torch.zeros(outputs))


class TrainedLayer:
    """A layer whose forward and backward passes compute live blocks alone.

    Gradients of weights outside of live blocks are 0. Calls must not run at the same time in several threads.

    Args:
        functions: those of `compile_training`.
        live: per linear layer a bool mask like its weight.
    """

    def __init__(
        self, functions: ctypes.CDLL, shape: LayerShape, parameters: LayerParameters, live: Sequence[Tensor]
    ) -> None:
        self.functions, self.shape, self.parameters = functions, shape, parameters
        self.blocks = [live_blocks(mask) for mask in live]
        self._described: tuple[int, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainedLayer:
        """Of the copies of the parameters."""
        copied = copy.copy(self)
        copied.parameters = copy.deepcopy(self.parameters, memo)
        copied.blocks = copy.deepcopy(self.blocks, memo)
        copied._described = ()
        return copied

    @property
    def live(self) -> int:
        """Weights in live blocks."""
        return sum(ROWS * len(packed.parts[0].column) for packed in self.blocks)

    def __call__(self, x: Tensor, lengths: Tensor, dropouts: Dropouts) -> Tensor:
        """The layer's output, float32 [examples, tokens, hidden], with zeros behind the end of each text.

        Args:
            x: float32 [examples, tokens, hidden].
            lengths: int32 [examples], tokens of each text; what follows is padding.

        Raises:
            MemoryError: there is no memory.
            ValueError: a tensor is of another type or shape.
        """
        hidden = len(self.parameters.norm_weights[0])
        if (x.dtype, x.dim(), x.shape[-1]) != (torch.float32, 3, hidden) or (lengths.dtype, lengths.shape) != (
            torch.int32,
            x.shape[:1],
        ):
            raise ValueError(
                f"a layer takes float32 [examples, tokens, {hidden}] and int32 [examples], "
                f"not {x.dtype} {list(x.shape)} and {lengths.dtype} {list(lengths.shape)}"
            )
        result: Tensor = _LayerFunction.apply(x, self, lengths, dropouts, *self.parameters.flat())  # type: ignore[no-untyped-call]
        return result

    def description(self) -> _CTrainedLayer:
        """The layer for the kernels."""
        addresses = tuple(tensor.data_ptr() for tensor in self.parameters.flat())
        if addresses != self._described:
            self._structure = self._describe()
            self._described = addresses
        return self._structure

    def _describe(self) -> _CTrainedLayer:
        self._structures = Structures()
        given = self.parameters
        linears = [
            self._structures.linear(PackedLinear(packed.shape, packed.parts, bias.detach()))
            for packed, bias in zip(self.blocks, given.biases, strict=True)
        ]
        norms = [
            self._structures.norm(weight.detach(), bias.detach())
            for weight, bias in zip(given.norm_weights, given.norm_biases, strict=True)
        ]
        layer = CLayer(self.shape.heads, given.weights[0].shape[0] // self.shape.heads, *linears, *norms)
        weights = (_POINTER * len(LINEARS))(*(weight.data_ptr() for weight in given.weights))
        return _CTrainedLayer(layer, weights, *self.shape.epsilons, ACTIVATIONS[self.shape.activation])


class _LayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layer: TrainedLayer, lengths: Tensor, dropouts: Dropouts, *given: Tensor
    ) -> Tensor:
        x = x.contiguous()
        examples, tokens, _ = x.shape
        described, dropped = layer.description(), _dropouts(dropouts)
        memory, work = ctypes.c_int64(), ctypes.c_int64()
        layer.functions.hydraprune_layer_room(
            ctypes.addressof(described), lengths.data_ptr(), examples, ctypes.byref(memory), ctypes.byref(work)
        )
        kept, y = torch.empty(memory.value, dtype=torch.float32), torch.empty_like(x)
        _call(
            layer.functions.hydraprune_layer_forward,
            (ctypes.addressof(described), ctypes.addressof(dropped), lengths.data_ptr(), examples, tokens),
            (x.data_ptr(), y.data_ptr(), kept.data_ptr()),
        )
        ctx.layer, ctx.lengths, ctx.dropouts, ctx.work = layer, lengths, dropouts, work.value
        # The parameters, so that autograd refuses a backward pass after they changed.
        ctx.save_for_backward(kept, *given)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        kept, *given = ctx.saved_tensors
        layer, lengths = ctx.layer, ctx.lengths
        described, dropped = layer.description(), _dropouts(ctx.dropouts)
        dy = dy.contiguous()
        dx = torch.empty_like(dy) if ctx.needs_input_grad[0] else None
        wanted = ctx.needs_input_grad[4:]
        made = [_empty_gradient(tensor) if needed else None for tensor, needed in zip(given, wanted, strict=True)]
        gradients, work = _gradients(made), torch.empty(ctx.work, dtype=torch.float32)
        _call(
            layer.functions.hydraprune_layer_backward,
            (ctypes.addressof(described), ctypes.addressof(dropped), lengths.data_ptr(), *dy.shape[:2]),
            (dy.data_ptr(), _address(dx), kept.data_ptr(), work.data_ptr(), ctypes.addressof(gradients)),
        )
        return dx, None, None, None, *made


def _empty_gradient(parameter: Tensor) -> Tensor:
    # Of a weight only live blocks are written.
    return torch.zeros_like(parameter) if parameter.dim() == 2 else torch.empty_like(parameter)


def _call(function: Callable[..., None], batch: tuple[Any, ...], memory: tuple[Any, ...]) -> None:
    status = ctypes.c_int32()
    function(*batch, *memory, torch.get_num_threads(), ctypes.byref(status))
    if status.value:
        raise MemoryError("a layer of an encoder")


def _gradients(made: Sequence[Tensor | None]) -> _CGradients:
    counts, first, fields_ = (len(LINEARS), len(LINEARS), 2, 2), 0, []
    for count in counts:
        fields_.append((_POINTER * count)(*(_address(tensor) for tensor in made[first : first + count])))
        first += count
    return _CGradients(*fields_)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _dropouts(dropouts: Dropouts) -> _CDropouts:
    return _CDropouts(*(_dropout(key) for key in (dropouts.weights, dropouts.attention, dropouts.ffn)))


def _dropout(key: DropoutKey | None) -> _CDropout:
    if key is None:
        return _CDropout((ctypes.c_uint32 * 2)(0, 0), 0, 1.0)
    return _CDropout((ctypes.c_uint32 * 2)(key.first, key.second), key.levels, key.scale)
