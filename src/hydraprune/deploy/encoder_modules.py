"""Encoders whose forward pass the kernels know: where their modules lie, and their weights, packed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.kernels.encoders import EmbeddingWeights, EncoderWeights, LayerWeights, NormWeights
from hydraprune.kernels.packing import PackedLinear, Precision, pack
from hydraprune.models.encoder_layers import (
    ACTIVATIONS,
    EncoderLayer,
    activation_of,
    encoder_layers,
    kernel_activation,
)
from hydraprune.models.families import model_type


@dataclass(frozen=True)
class EncoderModules:
    """What is not the same in all kinds of encoders, beside the names in `hydraprune.models.encoder_layers`.

    Args:
        counts_padding: whether tokens of the padding id have a position of their own.
        relative_bias: the table of biases by relative position below the base model (MPNet), if there is one.
    """

    counts_padding: bool = True
    relative_bias: str | None = None


_BERT = EncoderModules()
_ROBERTA = replace(_BERT, counts_padding=False)
# model_type -> modules.
ENCODERS: Mapping[str, EncoderModules] = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _BERT,
    "mpnet": EncoderModules(counts_padding=False, relative_bias="encoder.relative_attention_bias"),
}


def fused_misfit(base: nn.Module) -> str | None:
    """Why the kernels do not compute this base model; None if they do."""
    config: Any = base.config
    kind = model_type(base)
    if kind not in ENCODERS:
        return f"model_type {kind} has no fused kernels"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it is a decoder"
    if kernel_activation(config) is None:
        return f"its activation {activation_of(config)} is none of {', '.join(ACTIVATIONS)}"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"its positions are {config.position_embedding_type}"
    if getattr(config, "output_hidden_states", False) or getattr(config, "output_attentions", False):
        return "its config asks for the states of all layers or for attention weights"
    norms = [module for name, module in base.named_modules() if name.lower().endswith(("layernorm", "layer_norm"))]
    if not norms or any(type(norm) is not nn.LayerNorm for norm in norms):
        return "its normalisations are not plain ones"
    if len({norm.eps for norm in norms}) != 1:
        return "its normalisations have several epsilons"
    if not ENCODERS[kind].counts_padding and getattr(base.embeddings, "padding_idx", None) is None:
        return "it has no id for padding"
    layers = encoder_layers(base)
    if len(layers) != config.num_hidden_layers:
        return "its layers are not made of plain linear layers"
    if any(layer.head_size % 2 for layer in layers):
        return "its heads have an odd size"
    if ENCODERS[kind].relative_bias and any(layer.heads != config.num_attention_heads for layer in layers):
        return "some of its heads were removed, and each has biases of its own by position"
    return None


# (linear layer, factor of its weight and bias) -> both, packed.
Packer = Callable[[nn.Linear, float], PackedLinear]


def packer(precision: Precision) -> Packer:
    """Packs the weights that linear layers have."""

    def pack_linear(linear: nn.Linear, scale: float) -> PackedLinear:
        weight, bias = linear.weight.detach().float(), linear.bias
        scaled = weight if scale == 1 else weight * scale
        return pack(scaled, None if bias is None else bias.detach() * scale, precision)

    return pack_linear


def encoder_weights(base: nn.Module, precision: Precision, pack_linear: Packer | None = None) -> EncoderWeights:
    """The weights of a base model for which `fused_misfit` is None.

    Args:
        pack_linear: for the linear layers of its layers; None: `packer(precision)`.
    """
    modules = ENCODERS[model_type(base)]
    pack_linear = pack_linear or packer(precision)
    layers = [layer_weights(base, layer, pack_linear) for layer in encoder_layers(base)]
    bias, embedding = None, _embedding(base, modules)
    if modules.relative_bias is not None:
        bias = _relative(base, modules, embedding.longest)
    epsilon = next(m.eps for m in base.modules() if isinstance(m, nn.LayerNorm))
    return EncoderWeights(embedding, layers, epsilon, precision, bias)


def layer_weights(base: nn.Module, layer: EncoderLayer, pack_linear: Packer) -> LayerWeights:
    """The weights of one layer of a base model for which `fused_misfit` is None."""
    first, second = map(_norm, layer.norms)
    return LayerWeights(
        layer.heads,
        # Scores are divided by the root of the head size; here the query is.
        pack_linear(layer.query, 1 / math.sqrt(layer.head_size)),
        pack_linear(layer.key, 1),
        pack_linear(layer.value, 1),
        pack_linear(layer.attention_output, 1),
        first,
        pack_linear(layer.ffn_in, 1),
        ACTIVATIONS[activation_of(base.config)],
        pack_linear(layer.ffn_out, 1),
        second,
    )


def _norm(norm: Any) -> NormWeights:
    return NormWeights(_single(norm.weight), _single(norm.bias))


def _single(tensor: Tensor) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()


def _embedding(base: nn.Module, modules: EncoderModules) -> EmbeddingWeights:
    tables: Any = base.get_submodule("embeddings")
    types = getattr(tables, "token_type_embeddings", None)
    if types is not None and not len(types.weight):
        types = None
    project = getattr(base, "embeddings_project", None)
    padding = None if modules.counts_padding else int(tables.padding_idx)
    return EmbeddingWeights(
        _single(tables.word_embeddings.weight),
        _single(tables.position_embeddings.weight),
        None if types is None else _single(types.weight),
        _norm(tables.LayerNorm),
        # In single precision always: its input is.
        None if project is None else packer("fp32")(project, 1),
        0 if padding is None else padding + 1,
        padding,
    )


def _relative(base: Any, modules: EncoderModules, longest: int) -> Tensor:
    """[heads, 2 * reach + 1]: the bias at query - key + reach."""
    table = base.get_submodule(modules.relative_bias).weight
    # A window of tokens is rounded up to 16: queries beyond the text are computed, and not used.
    reach = longest + 16
    distance = torch.arange(reach, -reach - 1, -1)
    return _single(table[base.encoder.relative_position_bucket(distance)].T)
