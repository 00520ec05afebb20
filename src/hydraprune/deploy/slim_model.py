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


def slim_model(model: nn.Module, multiple: int = 1) -> Slimmed:
    """Remove from a model, in place, all heads and channels that have no effect on its outputs.

    What removed units add to every output, their biases, goes into the biases of the outputs. Every layer keeps one
    head and one channel at least. Where no head was removed and the layers keep nearly as many channels each, narrower
    ones are padded with zeros, and the config gives the width. Otherwise the config gives the sizes of each layer
    (`hydraprune.models.slim_sizes`).

    Args:
        model: with a config of transformers; of a family in `ENCODERS`.
        multiple: every layer is padded to a multiple of so many channels, as patterns such as 4x1 need it, but not
            beyond those that it had.

    Raises:
        UserError: the model is of another family, or nothing can be removed.
    """
    layers = encoder_layers(model)
    if not layers:
        raise UserError(f"is a {model_type(model)} model, and slim knows the layers of {', '.join(ENCODERS)}")
    config: Any = model.config
    heads, channels = [_head_removal(layer) for layer in layers], [_channel_removal(layer) for layer in layers]
    names, before = [layer.name for layer in layers], [(layer.heads, layer.channels) for layer in layers]
    after = [(len(kept.kept), len(staying.kept)) for kept, staying in zip(heads, channels, strict=True)]
    widths = [min(-(-kept // multiple) * multiple, had) for (_, kept), (_, had) in zip(after, before, strict=True)]
    plain = all(kept == int(config.num_attention_heads) for kept, _ in after) and _is_even(before, after, widths)
    if plain:
        widths = [max(widths)] * len(layers)
    if [(kept, width) for (kept, _), width in zip(after, widths, strict=True)] == before:
        raise UserError(
            "nothing can be removed: in no layer is a whole attention head or a whole channel zero",
            cure="train with pattern=slim, heads or channels; other zeros are used by hydraprune.deploy.accelerate",
        )
    old = sizes_of(config) or [LayerSizes(tuple(range(count)), width) for count, width in before]
    for layer, kept, staying, width in zip(layers, heads, channels, widths, strict=True):
        _add(layer.attention_output.bias, kept.bias)
        _add(layer.ffn_out.bias, staying.bias)
        layer.keep_heads(kept.kept)
        layer.keep_channels(staying.kept)
        layer.pad_channels(width)
    if plain:
        set_sizes(config, None)
        setattr(config, next(field for field in CHANNEL_FIELDS if hasattr(config, field)), widths[0])
    else:
        numbers = [tuple(sizes.heads[head] for head in kept.kept) for sizes, kept in zip(old, heads, strict=True)]
        set_sizes(config, [LayerSizes(*sizes) for sizes in zip(numbers, widths, strict=True)])
    described = zip(names, before, after, widths, strict=True)
    return Slimmed(tuple(SlimLayer(n, (b[0], a[0]), (b[1], a[1]), w) for n, b, a, w in described), plain)


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


def _is_even(before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]], widths: Sequence[int]) -> bool:
    """Whether padding all layers to one width adds little.

    Args:
        before, after: (heads, channels) of each layer.
    """
    kept = sum(channels for _, channels in after)
    removed = sum(channels for _, channels in before) - kept
    padding = max(widths) * len(widths) - sum(widths)
    return padding <= _MOST_PADDING * min(kept, removed)


def _add(bias: Tensor, constants: Tensor) -> None:
    """Add in double precision, in place."""
    with torch.no_grad():
        bias.copy_(bias.double() + constants)
