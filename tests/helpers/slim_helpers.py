"""Encoders in which heads and channels are zero, of every family that `slim` knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from family_helpers import SIZES, model_of
from torch import nn

from hydraprune.models.encoder_layers import EncoderLayer, encoder_layers
from hydraprune.models.tiny import TinyModel

SIZES.setdefault("xlm-roberta", SIZES["roberta"])
SIZES.setdefault("camembert", SIZES["roberta"])
KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "mpnet")


def random_model(kind: str, **more: object) -> nn.Module:
    """A model for two classes whose biases are not zero."""
    torch.manual_seed(0)
    model = model_of(kind, **more)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.mul_(5)
    return model


def zero_heads(layer: EncoderLayer, heads: Sequence[int], at: str) -> None:
    """Set heads to zero `at` their value rows, or at their columns of the output projection."""
    size = layer.head_size
    with torch.no_grad():
        for head in heads:
            rows = slice(head * size, (head + 1) * size)
            if at == "value":
                layer.value.weight[rows] = 0
            else:
                layer.attention_output.weight[:, rows] = 0


def zero_channels(layer: EncoderLayer, channels: Sequence[int], at: str) -> None:
    """Set channels to zero `at` their rows, or at their columns."""
    with torch.no_grad():
        if at == "row":
            layer.ffn_in.weight[channels] = 0
        else:
            layer.ffn_out.weight[:, channels] = 0


def slimmable(kind: str, **more: object) -> nn.Module:
    """A model of two layers, in which heads 1 and 3, and 2, and 40 channels are zero, in all ways."""
    model = random_model(kind, **more)
    first, second = encoder_layers(model)
    zero_heads(first, [1], "value")
    zero_heads(first, [3], "output")
    zero_heads(second, [2], "value")
    zero_channels(first, list(range(0, 30, 2)), "row")
    zero_channels(first, list(range(1, 20, 2)), "column")
    zero_channels(second, list(range(5, 20)), "row")
    return model


def save(model: nn.Module, folder: Path) -> Path:
    """Save a model with a tokenizer of the toy language."""
    model.save_pretrained(folder)  # type: ignore[operator]
    TinyModel("tiny", 32, 1, 2, 32).tokenizer().save_pretrained(folder)
    return folder
