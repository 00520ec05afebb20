"""Slimming a model: heads and channels without effect are removed from it; and loading a slimmed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.deploy.slim_removal import Removal, removable_channels, removable_heads
from hydraprune.errors import UserError
from hydraprune.models.encoder_layers import CHANNEL_FIELDS, ENCODERS, EncoderLayer, encoder_layers
from hydraprune.models.families import model_type
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.slim_sizes import LayerSizes, set_sizes, sizes_of

# Layers are padded to one width if that adds at most this share of the channels that stay, and of those that go.
_MOST_PADDING = 0.05


@dataclass(frozen=True)
class SlimLayer:
    """One layer, before and after.

    Args:
        name: of the layer in the model.
        heads: attention heads.
        channels: of its feed-forward network; those that pad it not counted.
        width: channels with those that pad it.
    """

    name: str
    heads: tuple[int, int]
    channels: tuple[int, int]
    width: int

    @property
    def padding(self) -> int:
        """Channels of zeros."""
        return self.width - self.channels[1]


@dataclass(frozen=True)
class Slimmed:
    """What was done to a model.

    Args:
        layers: in the order of the model.
        plain: whether transformers loads it as it is: layers do not differ in size.
    """

    layers: tuple[SlimLayer, ...]
    plain: bool

    @property
    def padding(self) -> int:
        """Channels of zeros in all layers."""
        return sum(layer.padding for layer in self.layers)


def slim_model(model: nn.Module) -> Slimmed:
    """Remove from a model, in place, all heads and channels that have no effect on its outputs.

    What removed units add to every output, their biases, goes into the biases of the outputs. Every layer keeps one
    head and one channel at least. Where no head was removed and the layers keep nearly as many channels each, narrower
    ones are padded with zeros, and the config gives the width. Otherwise the config gives the sizes of each layer
    (`hydraprune.models.slim_sizes`).

    Args:
        model: with a config of transformers; of a family in `ENCODERS`.

    Raises:
        UserError: the model is of another family, or nothing can be removed.
    """
    layers = encoder_layers(model)
    if not layers:
        raise UserError(f"is a {model_type(model)} model, and slim knows the layers of {', '.join(ENCODERS)}")
    config: Any = model.config
    before = [LayerSizes(tuple(range(layer.heads)), layer.channels) for layer in layers]
    original = sizes_of(config) or before
    removals = [(_head_removal(layer), _channel_removal(layer)) for layer in layers]
    after = [
        LayerSizes(tuple(sizes.heads[head] for head in heads.kept), len(channels.kept))
        for sizes, (heads, channels) in zip(original, removals, strict=True)
    ]
    width = _common_width(before, after, int(config.num_attention_heads))
    widths = [width or sizes.channels for sizes in after]
    described = [
        SlimLayer(layer.name, (layer.heads, len(new.heads)), (layer.channels, new.channels), padded)
        for layer, new, padded in zip(layers, after, widths, strict=True)
    ]
    if all(layer.heads[0] == layer.heads[1] and layer.channels[0] == layer.width for layer in described):
        raise UserError(
            "nothing can be removed: in no layer is a whole attention head or a whole channel zero",
            cure="train with pattern=slim, heads or ffn_channels",
        )
    for layer, (heads, channels), padded in zip(layers, removals, widths, strict=True):
        _add(layer.attention_output.bias, heads.bias)
        _add(layer.ffn_out.bias, channels.bias)
        layer.keep_heads(heads.kept)
        layer.keep_channels(channels.kept)
        layer.pad_channels(padded)
    set_sizes(config, after if width is None else None)
    if width is not None:
        setattr(config, next(field for field in CHANNEL_FIELDS if hasattr(config, field)), width)
    return Slimmed(tuple(described), width is not None)


def load_slim(folder: str | Path) -> nn.Module:
    """The model in a folder that `hydraprune slim` wrote, with layers of different sizes or not.

    It has the class, inputs and outputs of the model that was slimmed, is in evaluation mode, and works in
    `transformers.pipeline`.

    Args:
        folder: or hub id.

    Raises:
        UserError: it cannot be loaded, or its sizes are not those of its weights.
    """
    return PretrainedModel(Path(folder).name, str(folder), key="folder").load()


def _head_removal(layer: EncoderLayer) -> Removal:
    value, output = layer.value, layer.attention_output
    return removable_heads(value.weight.detach(), value.bias.detach(), output.weight.detach(), layer.heads)


def _channel_removal(layer: EncoderLayer) -> Removal:
    weight, bias = layer.ffn_in.weight.detach(), layer.ffn_in.bias.detach()
    return removable_channels(weight, bias, layer.activation, layer.ffn_out.weight.detach())


def _common_width(before: Sequence[LayerSizes], after: Sequence[LayerSizes], heads: int) -> int | None:
    """The channels to which all layers can be padded; None where a config of transformers cannot say the sizes.

    It has one number of heads, of which their size follows, and one of channels, for all layers.
    """
    if any(len(layer.heads) != heads for layer in after):
        return None
    channels = [layer.channels for layer in after]
    kept, had, width = sum(channels), sum(layer.channels for layer in before), max(channels)
    return width if width * len(channels) - kept <= _MOST_PADDING * min(kept, had - kept) else None


def _add(bias: Tensor, constants: Tensor) -> None:
    """Add in double precision, in place."""
    with torch.no_grad():
        bias.copy_(bias.double() + constants)
