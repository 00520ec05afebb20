"""The layers of an encoder of BERT's kind, and how heads and channels are taken out of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.models.families import FAMILIES, ModelFamily, model_type
from hydraprune.sparsity.layouts import model_block_of

_MPNET = ModelFamily(
    "mpnet",
    {
        "query": [r".*\.attention\.attn\.q"],
        "key": [r".*\.attention\.attn\.k"],
        "value": [r".*\.attention\.attn\.v"],
        "attention_output": [r".*\.attention\.attn\.o"],
        "ffn_in": [r".*\.layer\.\d+\.intermediate\.dense"],
        "ffn_out": [r".*\.layer\.\d+\.output\.dense"],
    },
)
# model_type -> family, of the models whose layers are found here.
ENCODERS = {
    **{kind: FAMILIES[kind] for kind in ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")},
    "mpnet": _MPNET,
}
_ROLES = {"query", "key", "value", "attention_output", "ffn_in", "ffn_out"}
# model_type -> names below a layer of the normalisations behind attention and behind the feed-forward network.
_BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
_NORMS = {
    **dict.fromkeys(("bert", "electra", "roberta", "xlm-roberta", "camembert"), _BERT_NORMS),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
    "mpnet": ("attention.LayerNorm", "output.LayerNorm"),
}
# Config fields of the activation, and its names in transformers -> in the kernels.
_ACTIVATION_FIELDS = ("hidden_act", "activation")
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Names of the config field that holds the channels of a feed-forward network.
CHANNEL_FIELDS = ("intermediate_size", "hidden_dim")
# Attributes of modules: the number of heads, the product with their size, and the activation of the channels.
_HEADS = ("num_attention_heads", "n_heads")
_ALL_HEADS = "all_head_size"
_ACTIVATION_MODULES = ("intermediate_act_fn", "activation")


@dataclass(frozen=True)
class EncoderLayer:
    """The modules of one layer.

    Args:
        name: of the layer in the model.
        attention: the module that holds `query`, `key` and `value`, and computes with them.
        query, key, value: Linear, heads * head size rows.
        attention_output: Linear, as many columns.
        ffn_in: Linear, a row for each channel.
        activation: of the channels, value by value.
        ffn_out: Linear, a column for each channel.
        norms: the normalisations behind attention and behind the feed-forward network.
    """

    name: str
    attention: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    ffn_in: nn.Linear
    activation: Callable[[Tensor], Tensor]
    ffn_out: nn.Linear
    norms: tuple[nn.Module, nn.Module]

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(getattr(self.attention, _attribute(self.attention, _HEADS)))

    @property
    def head_size(self) -> int:
        """Rows of query, key and value for one head."""
        return self.value.weight.shape[0] // self.heads

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        """Query, key, value, attention output, and the two of the feed-forward network."""
        return self.query, self.key, self.value, self.attention_output, self.ffn_in, self.ffn_out

    @property
    def channels(self) -> int:
        """Channels of the feed-forward network."""
        return self.ffn_in.weight.shape[0]

    def keep_heads(self, heads: Sequence[int]) -> None:
        """Remove all heads but those of these numbers from the weights and from the attention's module."""
        size = self.head_size
        rows = torch.tensor([head * size + row for head in heads for row in range(size)], dtype=torch.int64)
        for linear in (self.query, self.key, self.value):
            _keep_rows(linear, rows)
        _keep_columns(self.attention_output, rows)
        _follow_relative_positions(self.attention, heads)
        setattr(self.attention, _attribute(self.attention, _HEADS), len(heads))
        if hasattr(self.attention, _ALL_HEADS):
            setattr(self.attention, _ALL_HEADS, len(rows))

    def keep_channels(self, channels: Sequence[int]) -> None:
        """Remove all channels of the feed-forward network but those of these numbers."""
        kept = torch.tensor(channels, dtype=torch.int64)
        _keep_rows(self.ffn_in, kept)
        _keep_columns(self.ffn_out, kept)

    def pad_channels(self, channels: int) -> None:
        """Add channels whose weights are zero until there are so many."""
        rows, columns = channels - self.channels, self.ffn_in.weight.shape[1]
        with torch.no_grad():
            zeros = self.ffn_in.weight.new_zeros
            _replace(
                self.ffn_in,
                torch.cat([self.ffn_in.weight, zeros(rows, columns)]),
                torch.cat([self.ffn_in.bias, zeros(rows)]),
            )
            _replace(self.ffn_out, torch.cat([self.ffn_out.weight, zeros(columns, rows)], 1))


def encoder_layers(model: nn.Module) -> list[EncoderLayer]:
    """The layers of a model's encoder in order.

    None where its family is not one of `ENCODERS`, or a layer lacks one of the linear layers: those of an adapter, or
    quantized ones, are no `nn.Linear`.
    """
    family = ENCODERS.get(model_type(model))
    if family is None:
        return []
    blocks: dict[str, dict[str, str]] = {}
    for name, module in model.named_modules():
        role = family.role_of(name) if isinstance(module, nn.Linear) else None
        if role is not None:
            blocks.setdefault(model_block_of(name), {})[role] = name
    if any(set(names) != _ROLES for names in blocks.values()):
        return []
    return [_layer(model, block, names) for block, names in blocks.items()]


def _layer(model: nn.Module, block: str, names: dict[str, str]) -> EncoderLayer:
    linears: dict[str, Any] = {role: model.get_submodule(name) for role, name in names.items()}
    # The activation is an attribute of the module around the first matrix.
    around = model.get_submodule(names["ffn_in"].rpartition(".")[0])
    activation = getattr(around, _attribute(around, _ACTIVATION_MODULES))
    attention = model.get_submodule(names["query"].rpartition(".")[0])
    first, second = (model.get_submodule(f"{block}.{name}") for name in _NORMS[model_type(model)])
    return EncoderLayer(block, attention, activation=activation, norms=(first, second), **linears)


def kernel_activation(config: Any) -> str | None:
    """The kernels' name for the activation that a config names; None if they have none."""
    return ACTIVATIONS.get(activation_of(config))


def activation_of(config: Any) -> Any:
    """What a config names as the activation of feed-forward networks."""
    return next(getattr(config, field) for field in _ACTIVATION_FIELDS if hasattr(config, field))


def _attribute(module: nn.Module, names: Sequence[str]) -> str:
    """The one of some names that an attribute of `module` has."""
    return next(name for name in names if hasattr(module, name))


def _keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    rows = rows.to(linear.weight.device)
    _replace(linear, linear.weight.detach()[rows], linear.bias.detach()[rows])


def _keep_columns(linear: nn.Linear, columns: Tensor) -> None:
    _replace(linear, linear.weight.detach()[:, columns.to(linear.weight.device)])


def _replace(linear: nn.Linear, weight: Tensor, bias: Tensor | None = None) -> None:
    """Give a layer another weight, and another bias where there is one to give."""
    trains = linear.weight.requires_grad
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=trains)
    if bias is not None:
        linear.bias = nn.Parameter(bias.contiguous(), requires_grad=trains)
    linear.out_features, linear.in_features = weight.shape


class _HeadsOfBias:
    """A hook before MPNet's attention: of the position bias of all heads it takes those of the heads that are left.

    The encoder computes the bias once, [texts, heads, queries, keys], and hands it to every layer.
    """

    _name, _place = "position_bias", 2

    def __init__(self, heads: Sequence[int]) -> None:
        self.heads = list(heads)

    def __call__(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values = list(arguments)
        if len(values) > self._place and values[self._place] is not None:
            values[self._place] = values[self._place][:, self.heads]
        elif named.get(self._name) is not None:
            named = {**named, self._name: named[self._name][:, self.heads]}
        return tuple(values), named


def _follow_relative_positions(attention: nn.Module, heads: Sequence[int]) -> None:
    """Let an attention that is given a bias for each head use those of the kept heads."""
    if not re.fullmatch(r"MPNet\w*Attention", type(attention).__name__):
        return
    hooks = attention._forward_pre_hooks
    for hook in hooks.values():
        if isinstance(hook, _HeadsOfBias):
            hook.heads = [hook.heads[head] for head in heads]
            return
    attention.register_forward_pre_hook(_HeadsOfBias(heads), with_kwargs=True)
