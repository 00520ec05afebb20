"""Slim sizes: which heads and how many channels each layer of a slimmed model has, in its config.

`config.json` keeps the sizes of the model that was slimmed, so that the layers of the weights file have other shapes
than transformers expects, and it refuses them. The sizes lie beside, under `hydraprune_slim`:

    {"version": 1, "layers": [{"heads": [0, 3], "channels": 512}, ...]}

`heads` are the numbers that the kept heads had in the model that was slimmed. A config keeps keys that transformers
does not know, so the sizes stay with a slimmed model that is trained further and saved again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from hydraprune.errors import UserError, single_line
from hydraprune.models.encoder_layers import encoder_layers

KEY = "hydraprune_slim"
_VERSION = 1


@dataclass(frozen=True)
class LayerSizes:
    """The sizes of one layer.

    Args:
        heads: numbers of the kept heads, ascending.
        channels: how many channels its feed-forward network has.
    """

    heads: tuple[int, ...]
    channels: int


def sizes_of(config: PretrainedConfig) -> tuple[LayerSizes, ...] | None:
    """The sizes of each layer in the config of a slimmed model; None for any other.

    Raises:
        UserError: what stands there is of another version, or no sizes.
    """
    written = getattr(config, KEY, None)
    if written is None:
        return None
    if isinstance(written, dict) and written.get("version", _VERSION) != _VERSION:
        raise UserError(f"{KEY} in its config.json is of version {written['version']!r:.20}, and {_VERSION} is known")
    layers = written.get("layers") if isinstance(written, dict) else None
    if not isinstance(layers, list) or not layers:
        raise _unreadable(written)
    return tuple(map(_layer_sizes, layers))


def set_sizes(config: PretrainedConfig, sizes: Sequence[LayerSizes] | None) -> None:
    """Write the sizes of each layer into a config; None removes them: the other fields hold."""
    if sizes is None:
        if hasattr(config, KEY):
            delattr(config, KEY)
        return
    layers = [{"heads": list(layer.heads), "channels": layer.channels} for layer in sizes]
    setattr(config, KEY, {"version": _VERSION, "layers": layers})


def _layer_sizes(written: object) -> LayerSizes:
    if not isinstance(written, dict):
        raise _unreadable(written)
    heads, channels = written.get("heads"), written.get("channels")
    if not isinstance(heads, list) or not heads or not all(type(head) is int and head >= 0 for head in heads):
        raise _unreadable(written)
    if heads != sorted(set(heads)) or type(channels) is not int or channels < 1:
        raise _unreadable(written)
    return LayerSizes(tuple(heads), channels)


def _unreadable(written: object) -> UserError:
    return UserError(f"{KEY}={single_line(written):.60} in its config.json does not give the sizes of its layers")


def fit_sizes(model: nn.Module) -> None:
    """Give the layers of a model the sizes in its config, if there are any. Which weights are kept has no meaning.

    Raises:
        UserError: they are no sizes of this model.
    """
    config: Any = model.config
    sizes = sizes_of(config)
    if sizes is None:
        return
    layers = encoder_layers(model)
    if len(layers) != len(sizes):
        raise UserError(f"{KEY} in its config.json has {len(sizes)} layers, and the model {len(layers)}")
    for layer, wanted in zip(layers, sizes, strict=True):
        if wanted.heads[-1] >= layer.heads or wanted.channels > layer.channels:
            raise UserError(
                f"{KEY} in its config.json gives {layer.name} head {wanted.heads[-1]} and {wanted.channels} channels, "
                f"and it has {layer.heads} heads and {layer.channels} channels"
            )
        layer.keep_heads(wanted.heads)
        layer.keep_channels(range(wanted.channels))


def fitted_class(kind: type) -> type:
    """A subclass of a transformers model whose instances are made with the sizes in their config.

    Its `from_pretrained` so loads a slimmed model, and refuses other shapes. It has the name of `kind`, since
    transformers reads it.
    """

    class Fitted(kind):  # type: ignore[misc]
        def __init__(self, config: PretrainedConfig, *arguments: Any, **named: Any) -> None:
            super().__init__(config, *arguments, **named)
            fit_sizes(self)

    Fitted.__name__, Fitted.__qualname__, Fitted.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Fitted
