"""Whole encoders of BERT's kind, as the kernels compute them: their weights, and one forward pass."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.packing import PackedLinear, Precision
from hydraprune.kernels.structures import CEncoder, CLayer, Structures

# Values of `enum status` in encoder.c.
_NO_MEMORY = 1
_MESSAGES = {
    2: "an input id is not in the vocabulary",
    3: "a token type is not one of the model",
    4: "a text is longer than the model's positions",
    5: "this processor has no such products, or (AMX) the size of a head is no multiple of 16 up to 256",
}
# Precision of the weights and of attention -> value of `enum precision` in encoder.c.
_PRECISIONS: dict[tuple[Precision, Precision], int] = {("fp32", "fp32"): 0, ("bf16", "bf16"): 1, ("fp32", "bf16"): 2}


@dataclass(frozen=True)
class NormWeights:
    """Layer normalisation: float32 [features]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LayerWeights:
    """One layer: attention and feed-forward network, each followed by a residual sum and a normalisation.

    Args:
        heads: of attention; the query has heads * head size rows, which are already divided by the
            square root of the head size.
        activation: `gelu`, `gelu_tanh` or `relu`.
    """

    heads: int
    query: PackedLinear
    key: PackedLinear
    value: PackedLinear
    attention_output: PackedLinear
    attention_norm: NormWeights
    ffn_in: PackedLinear
    activation: str
    ffn_out: PackedLinear
    ffn_norm: NormWeights


@dataclass(frozen=True)
class EmbeddingWeights:
    """The sum of the rows of three tables, normalised, and projected where the encoder is of another size.

    Args:
        word, position, token_type: float32 [rows, size]; the last two may be missing.
        first_position: row of the first token in `position`.
        padding: an id whose tokens have the position of that number, and are not counted (RoBERTa).
    """

    word: Tensor
    position: Tensor | None
    token_type: Tensor | None
    norm: NormWeights
    projection: PackedLinear | None = None
    first_position: int = 0
    padding: int | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return 2**30 if self.position is None else len(self.position) - self.first_position


@dataclass(frozen=True)
class EncoderWeights:
    """Everything that an encoder computes with.

    Args:
        epsilon: of every normalisation.
        precision: of the packed layers.
        relative: float32 [heads, 2 * reach + 1]; what is added to a score, at query - key + reach (MPNet).
    """

    embedding: EmbeddingWeights
    layers: Sequence[LayerWeights]
    epsilon: float
    precision: Precision = "fp32"
    relative: Tensor | None = None

    @property
    def has_tiles(self) -> bool:
        """Whether heads are of sizes that AMX multiplies: multiples of 16, up to 256."""
        sizes = [layer.query.shape[0] // layer.heads for layer in self.layers if layer.heads]
        return all(size % 16 == 0 and size <= 256 for size in sizes)

    @property
    def hidden(self) -> int:
        """Features of a token."""
        projection = self.embedding.projection
        return self.embedding.word.shape[1] if projection is None else projection.shape[0]


class Encoder:
    """An encoder in compiled code.

    Calls may run at the same time in several threads.

    Args:
        attention: the precision of attention, by default that of the weights. `bf16` with weights in `fp32` is computed
            by AMX, where `has_tiles` says that it can be.
    """

    def __init__(self, weights: EncoderWeights, compiled: Compiled, attention: Precision | None = None) -> None:
        self.weights = weights
        self.compiled = compiled
        self.attention: Precision = attention or weights.precision
        self._describe()
        self._precision = _PRECISIONS[weights.precision, self.attention]

    def __call__(self, ids: Tensor, types: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The last hidden state, float32 [texts, tokens, hidden]; 0 behind the last token that the mask keeps.

        Args:
            ids, types, mask: [texts, tokens]; a text of which the mask keeps nothing is computed as a whole.

        Raises:
            ValueError: shapes differ, an id or type is unknown, or a text is too long.
            MemoryError: there is no memory for this batch.
        """
        texts, tokens = _batch(ids)
        make = torch.empty if mask is None else torch.zeros
        # Named, since the compiled code takes nothing else: torch's defaults may be others.
        output = make(texts, tokens, self.weights.hidden, dtype=torch.float32, device="cpu")
        self._run(self.compiled.functions.hydraprune_encode, ids, types, mask, output)
        return output

    def first(self, ids: Tensor, types: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The last hidden state of first tokens, float32 [texts, hidden]: the last layer is computed for them alone.

        Its numbers are those of a whole call up to rounding.

        Args:
            ids, types, mask: as of a whole call.

        Raises:
            ValueError, MemoryError: as of a whole call, or there are no tokens.
        """
        texts, tokens = _batch(ids)
        if texts and not tokens:
            raise ValueError("there is no first token: input ids are [texts, 0]")
        output = torch.empty(texts, self.weights.hidden, dtype=torch.float32, device="cpu")
        self._run(self.compiled.functions.hydraprune_encode_first, ids, types, mask, output)
        return output

    def _run(self, function: Any, ids: Tensor, types: Tensor | None, mask: Tensor | None, output: Tensor) -> None:
        if self._structures.moved():
            self._describe()
        inputs = [_input(tensor, ids.shape) for tensor in (ids, types, None if mask is None else mask != 0)]
        if not ids.numel():
            return
        status = ctypes.c_int32()
        function(
            ctypes.addressof(self._encoder),
            self._precision,
            *(None if tensor is None else tensor.data_ptr() for tensor in inputs),
            *ids.shape,
            output.data_ptr(),
            torch.get_num_threads(),
            ctypes.byref(status),
        )
        if status.value == _NO_MEMORY:
            raise MemoryError("a batch of {} texts of {} tokens".format(*ids.shape))
        if status.value:
            raise ValueError(_MESSAGES[status.value])

    def _describe(self) -> None:
        self._structures = Structures()
        self._encoder = _encoder(self.weights, self._structures)
        # Whatever moves the tensors of the model that this was made from moves its tables; what moves those that were
        # packed here moves the first of them.
        embedding, layers = self.weights.embedding, self.weights.layers
        for tensor in (embedding.word, embedding.position, embedding.token_type, embedding.norm.weight):
            self._structures.watch(tensor)
        for part in layers[0].query.parts[:1] if layers else ():
            self._structures.watch(part.value)

    def __reduce__(self) -> tuple[type[Encoder], tuple[EncoderWeights, Compiled, Precision]]:
        return Encoder, (self.weights, self.compiled, self.attention)


def _batch(ids: Tensor) -> tuple[int, int]:
    if ids.dim() != 2:
        raise ValueError(f"input ids are [texts, tokens], not {list(ids.shape)}")
    return ids.shape[0], ids.shape[1]


def _input(tensor: Tensor | None, shape: torch.Size) -> Tensor | None:
    if tensor is None:
        return None
    if tensor.shape != shape:
        raise ValueError(f"inputs of different shapes: {list(tensor.shape)} beside {list(shape)}")
    if tensor.is_floating_point():
        raise ValueError(f"input ids and token types are integers, not {tensor.dtype}")
    return tensor.to(device="cpu", dtype=torch.int64).contiguous()


def _encoder(weights: EncoderWeights, make: Structures) -> CEncoder:
    layers = (CLayer * len(weights.layers))(*(_layer(layer, make) for layer in weights.layers))
    embedding = weights.embedding
    tables = (embedding.word, embedding.position, embedding.token_type)
    rows = [0 if table is None else len(table) for table in tables]
    projection = embedding.projection
    return CEncoder(
        len(layers),
        weights.hidden,
        embedding.word.shape[1],
        *rows,
        embedding.longest,
        embedding.first_position,
        -1 if embedding.padding is None else embedding.padding,
        weights.epsilon,
        make.address(layers),
        *map(make.pointer, tables),
        make.norm(embedding.norm.weight, embedding.norm.bias),
        None if projection is None else make.address(make.linear(projection)),
        make.pointer(weights.relative),
        0 if weights.relative is None else weights.relative.shape[1] // 2,
    )


def _layer(layer: LayerWeights, make: Structures) -> CLayer:
    return CLayer(
        layer.heads,
        layer.query.shape[0] // layer.heads if layer.heads else 0,
        make.linear(layer.query),
        make.linear(layer.key),
        make.linear(layer.value),
        make.linear(layer.attention_output),
        make.linear(layer.ffn_in, layer.activation),
        make.linear(layer.ffn_out),
        make.norm(layer.attention_norm.weight, layer.attention_norm.bias),
        make.norm(layer.ffn_norm.weight, layer.ffn_norm.bias),
    )
