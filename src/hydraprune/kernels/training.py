"""One layer of an encoder in training: forward and backward over the live blocks of its weights."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hydraprune.kernels.compiled import NATIVE
from hydraprune.kernels.dropout import DropoutKey
from hydraprune.kernels.live_blocks import LiveBlocks
from hydraprune.kernels.structures import ACTIVATIONS, CLayer, Structures
from hydraprune.sparsity import native_code

SOURCE = Path(__file__).with_name("training.c")
_FLAGS = ("-ffp-contract=fast", "-fno-math-errno")
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
        ("live", _POINTER * len(LINEARS)),
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
        self.blocks = [LiveBlocks(mask) for mask in live]
        self.packed = False
        self._described: tuple[int, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainedLayer:
        """Of the copies of the parameters."""
        copied = copy.copy(self)
        copied.parameters = copy.deepcopy(self.parameters, memo)
        copied.blocks = copy.deepcopy(self.blocks, memo)
        if self.packed:
            copied._whole = copy.deepcopy(self._whole, memo)
        copied._described = ()
        return copied

    @torch.no_grad()
    def pack(self) -> tuple[Tensor, ...]:
        """Train packed weights from now on: per linear layer a leaf [blocks, 4], the values of its live blocks.

        The weights themselves stay as they are until `unpack`.
        """
        for blocks, weight in zip(self.blocks, self.parameters.weights, strict=True):
            blocks.values.copy_(blocks.gather_live(weight)).requires_grad_(weight.requires_grad)
        self._whole = self.parameters.weights
        packed = tuple(blocks.values for blocks in self.blocks)
        self.parameters, self.packed = replace(self.parameters, weights=packed), True
        return packed

    @torch.no_grad()
    def unpack(self) -> None:
        """Write the values of packed weights into the weights, which they were taken from."""
        for blocks, weight in zip(self.blocks, self._whole, strict=True):
            weight.copy_(blocks.scatter(blocks.values))

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
            self._structures.linear(replace(blocks.packed, bias=bias.detach()))
            for blocks, bias in zip(self.blocks, given.biases, strict=True)
        ]
        norms = [
            self._structures.norm(weight.detach(), bias.detach())
            for weight, bias in zip(given.norm_weights, given.norm_biases, strict=True)
        ]
        layer = CLayer(self.shape.heads, given.biases[0].numel() // self.shape.heads, *linears, *norms)
        whole = [None] * len(LINEARS) if self.packed else [weight.data_ptr() for weight in given.weights]
        weights = (_POINTER * len(LINEARS))(*whole)
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
        made = [_empty_gradient(tensor, layer) if n else None for tensor, n in zip(given, wanted, strict=True)]
        gradients, work = _gradients(made, layer.packed), torch.empty(ctx.work, dtype=torch.float32)
        _call(
            layer.functions.hydraprune_layer_backward,
            (ctypes.addressof(described), ctypes.addressof(dropped), lengths.data_ptr(), *dy.shape[:2]),
            (dy.data_ptr(), _address(dx), kept.data_ptr(), work.data_ptr(), ctypes.addressof(gradients)),
        )
        for gradient, blocks in zip(made[: len(LINEARS)] if layer.packed else (), layer.blocks, strict=False):
            if gradient is not None and blocks.keep is not None:
                gradient.mul_(blocks.keep)
        return dx, None, None, None, *made


def _empty_gradient(parameter: Tensor, layer: TrainedLayer) -> Tensor:
    # Of a whole weight only live blocks are written.
    is_whole = parameter.dim() == 2 and not layer.packed
    return torch.zeros_like(parameter) if is_whole else torch.empty_like(parameter)


def _call(function: Callable[..., None], batch: tuple[Any, ...], memory: tuple[Any, ...]) -> None:
    status = ctypes.c_int32()
    function(*batch, *memory, torch.get_num_threads(), ctypes.byref(status))
    if status.value:
        raise MemoryError("a layer of an encoder")


def _gradients(made: Sequence[Tensor | None], packed: bool) -> _CGradients:
    addresses, count = [_address(tensor) for tensor in made], len(LINEARS)
    weights, biases, norms = addresses[:count], addresses[count : 2 * count], addresses[2 * count :]
    none: list[int | None] = [None] * count
    fields_ = ((none, weights) if packed else (weights, none)) + (biases, norms[:2], norms[2:])
    return _CGradients(*((_POINTER * len(field))(*field) for field in fields_))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _dropouts(dropouts: Dropouts) -> _CDropouts:
    return _CDropouts(*(_dropout(key) for key in (dropouts.weights, dropouts.attention, dropouts.ffn)))


def _dropout(key: DropoutKey | None) -> _CDropout:
    if key is None:
        return _CDropout((ctypes.c_uint32 * 2)(0, 0), 0, 1.0)
    return _CDropout((ctypes.c_uint32 * 2)(key.first, key.second), key.levels, key.scale)
