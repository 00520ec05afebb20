"""Layers of an encoder that are trained and evaluated by the kernels, over the live blocks of their weights alone."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.kernels.dropout import FastDropout, draw_key, drops_all
from hydraprune.kernels.live_blocks import ROWS, LiveBlocks, live_blocks
from hydraprune.kernels.training import Dropouts, LayerParameters, LayerShape, TrainedLayer
from hydraprune.models.encoder_layers import (
    ACTIVATIONS,
    EncoderLayer,
    activation_of,
    encoder_layers,
    kernel_activation,
)
from hydraprune.models.families import model_type

# model_type -> names below a layer of its dropouts: of attention weights, attention output, feed-forward network.
_BERT_DROPOUTS = ("attention.self.dropout", "attention.output.dropout", "output.dropout")
_DROPOUTS: Mapping[str, tuple[str, str | None, str]] = {
    **dict.fromkeys(("bert", "electra", "roberta", "xlm-roberta", "camembert"), _BERT_DROPOUTS),
    "distilbert": ("attention.dropout", None, "ffn.dropout"),
}
# Scores of masked tokens are at most this.
_MASKED = -1e4


class LiveLayers:
    """The layers of one model, whose forward passes the kernels compute where `use` says so.

    Other calls than those of an encoder that reads padded texts are computed by the layers themselves: with attention
    weights asked for, with hooks on modules inside of a layer, with a mask of another form.
    """

    def __init__(self, base: nn.Module, functions: ctypes.CDLL) -> None:
        self.functions = functions
        self.attention = str(getattr(base.config, "_attn_implementation", None))
        self.layers = [LiveLayer(base, layer, self) for layer in encoder_layers(base)]
        self._mask: Tensor | None = None
        self._lengths: Tensor | None = None
        self._wants_attentions = False
        for layer in self.layers:
            layer.module.forward = layer
        base.register_forward_pre_hook(self._note_call, with_kwargs=True)

    def _note_call(self, base: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A hook: transformers collects attention weights from inside of the layers."""
        asked = named.get("output_attentions")
        self._wants_attentions = bool(base.config.output_attentions if asked is None else asked)

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveLayers:
        """Of the copy of the model that `memo` is about; a process has compiled functions once."""
        memo[id(self.functions)] = self.functions
        copied = memo[id(self)] = copy.copy(self)
        copied._mask = copied._lengths = None
        copied.layers = copy.deepcopy(self.layers, memo)
        return copied

    @property
    def kernels(self) -> str:
        """The file name of the compiled kernels, which differs where their bits may."""
        return Path(self.functions._name).name

    @property
    def wants_attentions(self) -> bool:
        """Whether the call under way asks for attention weights."""
        return self._wants_attentions

    @property
    def weights(self) -> list[Tensor]:
        """The weights of the linear layers."""
        return [weight for layer in self.layers for weight in layer.weights]

    def use(self, live: Mapping[int, Tensor] | None) -> None:
        """Compute live blocks alone from now on; None: let the layers themselves compute, as at first.

        Args:
            live: id of a weight -> bool mask like it; a weight that is not in it is live as a whole.
        """
        for layer in self.layers:
            layer.use(live)

    def share(self, live: Mapping[int, Tensor]) -> float:
        """The share of weights in live blocks; `live` as of `use`."""
        counts = [_in_live_blocks(weight, live.get(id(weight))) for weight in self.weights]
        return sum(counts) / sum(weight.numel() for weight in self.weights)

    def pack(self) -> list[tuple[Tensor, LiveBlocks]]:
        """Train packed weights from now on: each weight, and its live blocks, whose `values` are the new leaf."""
        return [pair for layer in self.layers for pair in layer.pack()]

    def unpack(self) -> None:
        """Write the values of packed weights into the model."""
        for layer in self.layers:
            layer.unpack()

    def lengths(self, mask: Tensor | None, x: Tensor) -> Tensor | None:
        """int32 [examples], the tokens of each text; None where the mask is not that of padded texts.

        Args:
            mask: what transformers made of the batch's attention mask: [examples, 1, queries, keys], True or 0 where a
                key is kept.
            x: [examples, tokens, hidden].
        """
        if mask is None:
            return torch.full((x.shape[0],), x.shape[1], dtype=torch.int32)
        if mask is not self._mask:
            self._mask, self._lengths = mask, _lengths_of(mask, x)
        return self._lengths


class LiveLayer:
    """In the place of a layer's `forward`."""

    def __init__(self, base: nn.Module, layer: EncoderLayer, owner: LiveLayers) -> None:
        self.layer, self._owner = layer, owner
        self.module = base.get_submodule(layer.name)
        self.activation = ACTIVATIONS[activation_of(base.config)]
        self._dropouts = [
            None if name is None else self.module.get_submodule(name) for name in _DROPOUTS[model_type(base)]
        ]
        self._kernel: TrainedLayer | None = None
        self._own = self.module.forward

    @property
    def weights(self) -> list[Tensor]:
        """Those of the linear layers."""
        return [linear.weight for linear in self.layer.linears]

    @property
    def dropout_rates(self) -> list[float]:
        """Of its dropouts."""
        return [0.0 if dropout is None else float(getattr(dropout, "p", 0.0)) for dropout in self._dropouts]

    @property
    def shape(self) -> LayerShape:
        """What the layer computes beside its parameters."""
        norms: Any = self.layer.norms
        return LayerShape(self.layer.heads, self.activation, (norms[0].eps, norms[1].eps))

    def use(self, live: Mapping[int, Tensor] | None) -> None:
        """As `LiveLayers.use`, of this layer."""
        if live is None:
            self._kernel = None
            return
        weights = self.weights
        norms: Any = self.layer.norms
        parameters = LayerParameters(
            tuple(weights),
            tuple(linear.bias for linear in self.layer.linears),
            (norms[0].weight, norms[1].weight),
            (norms[0].bias, norms[1].bias),
        )
        masks = [live[id(weight)] if id(weight) in live else torch.ones(weight.shape).bool() for weight in weights]
        self._kernel = TrainedLayer(self._owner.functions, self.shape, parameters, masks)

    @cached_property
    def _inner(self) -> list[nn.Module]:
        return [module for module in self.module.modules() if module is not self.module]

    def pack(self) -> list[tuple[Tensor, LiveBlocks]]:
        assert self._kernel is not None
        self._kernel.pack()
        return list(zip(self.weights, self._kernel.blocks, strict=True))

    def unpack(self) -> None:
        if self._kernel is not None and self._kernel.packed:
            self._kernel.unpack()

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *rest: Any, **named: Any) -> Any:
        """As the layer's own forward pass."""
        kernel, lengths = self._kernel, None
        on_cpu = hidden_states.device.type == "cpu"
        if kernel is not None and on_cpu and not self._has_more(rest, named):
            lengths = self._owner.lengths(attention_mask, hidden_states)
        if kernel is not None and lengths is not None:
            return kernel(hidden_states.float(), lengths, self._drawn())
        if kernel is not None and kernel.packed:
            return self._with_packed(kernel, hidden_states, attention_mask, *rest, **named)
        return self._own(hidden_states, attention_mask, *rest, **named)

    def _with_packed(self, kernel: TrainedLayer, *arguments: Any, **named: Any) -> Any:
        """The layer's own forward pass, with the values of packed weights, which get their gradients."""
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        whole = [names[id(linear.weight)] for linear in self.layer.linears]
        weights = {name: blocks.scatter(blocks.values) for name, blocks in zip(whole, kernel.blocks, strict=True)}
        self._kernel = None
        try:
            return torch.func.functional_call(self.module, weights, arguments, named)
        finally:
            self._kernel = kernel

    def _has_more(self, rest: Sequence[Any], named: Mapping[str, Any]) -> bool:
        """Whether a call asks for more than the output, or someone looks at what happens inside."""
        given = any(isinstance(value, Tensor) for value in (*rest, *named.values()))
        return given or self._owner.wants_attentions or any(map(_is_watched, self._inner))

    def _drawn(self) -> Dropouts:
        """In the order in which the layer itself draws."""
        drawn = [
            draw_key(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else None
            for dropout in self._dropouts
        ]
        return Dropouts(*drawn)


def _in_live_blocks(weight: Tensor, live: Tensor | None) -> int:
    return weight.numel() if live is None else ROWS * int(live_blocks(live).sum())


def _is_watched(module: nn.Module) -> bool:
    """Whether a module has hooks other than those by which transformers collects outputs."""
    hooks = [
        *module._forward_hooks.values(),
        *module._forward_pre_hooks.values(),
        *module._backward_hooks.values(),
        *module._backward_pre_hooks.values(),
    ]
    return any(not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)


def live_misfit(model: Any) -> str | None:
    """Why the kernels do not train the layers of a model; None if they do."""
    base = model.base_model
    kind, config = model_type(base), base.config
    if kind not in _DROPOUTS:
        return f"model_type {kind} has no kernels for training"
    layers = encoder_layers(base)
    if len(layers) != config.num_hidden_layers:
        return "its layers are not made of plain linear layers"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it is a decoder"
    if kernel_activation(config) is None or getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return "its activation or its positions have no kernels"
    checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    if getattr(config, "chunk_size_feed_forward", 0) or checkpointing:
        return "it computes feed-forward networks in chunks, or layers again in the backward pass"
    return next((why for layer in layers if (why := _layer_misfit(base, layer))), None)


def _layer_misfit(base: nn.Module, layer: EncoderLayer) -> str | None:
    if any(type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None for norm in layer.norms):
        return "its normalisations are not plain ones"
    tensors = list(base.get_submodule(layer.name).parameters())
    if any(t.device.type != "cpu" or t.dtype != torch.float32 or not t.is_contiguous() for t in tensors):
        return "its weights are not float32 on a CPU"
    if any(
        type(linear) is not nn.Linear or linear.bias is None or linear.out_features % ROWS for linear in layer.linears
    ):
        return f"a linear layer has no bias, or outputs that are no multiple of {ROWS}"
    if layer.heads < 1 or layer.head_size % ROWS:
        return f"its heads have sizes that are no multiple of {ROWS}"
    names = [f"{layer.name}.{name}" for name in _DROPOUTS[model_type(base)] if name is not None]
    dropouts: list[Any] = [base.get_submodule(name) for name in names]
    if any(not isinstance(dropout, FastDropout) and dropout.p for dropout in dropouts):
        return "its dropout is PyTorch's (training.fast_dropout=false)"
    if any(drops_all(dropout.p) for dropout in dropouts):
        return "its dropout drops everything"
    return None


def _lengths_of(mask: Tensor, x: Tensor) -> Tensor | None:
    if mask.dim() != 4 or mask.shape[0] != x.shape[0] or mask.shape[-1] != x.shape[1]:
        return None
    row = mask[:, 0, 0]
    is_expanded = all(mask.shape[i] == 1 or mask.stride(i) == 0 for i in (1, 2))
    if not (is_expanded or torch.equal(mask, row[:, None, None].expand_as(mask))):
        return None  # not the same for all heads and queries
    keep = row if row.dtype == torch.bool else row == 0
    lengths = keep.sum(-1, dtype=torch.int32)
    is_prefix = torch.arange(x.shape[1]) < lengths[:, None]
    fits = torch.equal(keep, is_prefix) and bool((lengths > 0).all())
    if row.dtype != torch.bool:
        fits = fits and not bool(((row > _MASKED) & (row != 0)).any())
    return lengths if fits else None
