"""Layers of any Hugging Face model, found from its structure: which belong to the encoder, and the role of each.

The encoder's layers are the Linear and Conv modules in numbered blocks of the base model, such as
`model.layers.0.mlp.up_proj`. What lies above or beside (embedding projections, pooler, head) is outside. Roles follow
from the names that modules have in transformers, and from whether they lie in an attention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from hydraprune.models.classification_head import base_model
from hydraprune.sparsity.layer_weights import layers_of

# Last part of a module's name -> its role, in an attention and elsewhere.
_SURE = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "attention_output"}
_IN_ATTENTION = {
    **_SURE,
    **dict.fromkeys(("query", "q_lin", "q", "Wq", "wq", "query_proj", "q_head"), "query"),
    **dict.fromkeys(("key", "k_lin", "k", "Wk", "wk", "key_proj", "k_head"), "key"),
    **dict.fromkeys(("value", "v_lin", "v", "Wv", "wv", "value_proj", "v_head"), "value"),
    **dict.fromkeys(("query_key_value", "qkv", "Wqkv", "qkv_proj", "c_attn", "in_proj"), "query_key_value"),
    **dict.fromkeys(("out_proj", "out_lin", "o", "Wo", "wo", "proj", "c_proj", "post_proj"), "attention_output"),
}
_ELSEWHERE = {
    **_SURE,
    **dict.fromkeys(("lin1", "fc1", "c_fc", "dense_h_to_4h", "up_proj", "fc_in", "linear_1", "linear_fc1"), "ffn_in"),
    **dict.fromkeys(("layer_1", "pwconv1", "dense1", "ffn", "wi", "wi_1", "Wi", "w3"), "ffn_in"),
    **dict.fromkeys(("gate_proj", "wi_0", "w1"), "ffn_gate"),
    **dict.fromkeys(("gate_up_proj",), "ffn_gate_in"),
    **dict.fromkeys(("lin2", "fc2", "c_proj", "dense_4h_to_h", "down_proj", "fc_out", "linear_2"), "ffn_out"),
    **dict.fromkeys(("linear_fc2", "layer_2", "pwconv2", "dense2", "ffn_output", "wo", "Wo", "w2"), "ffn_out"),
}
# Names behind the number of the block whose last part says nothing: `dense` in most of them.
_BY_TAIL = {
    r"(\w+\.)?attention\.output\.dense|attention\.dense|self_attention\.dense|self_attn\.dense": "attention_output",
    r"self_attn\.output|multi_head_attention\.dense|post_attention\.conv1d": "attention_output",
    r"intermediate\.(dense|conv1d)|feed_forward\.(dense\.dense|intermediate)": "ffn_in",
    r"output\.(dense|conv1d)|feed_forward\.output(\.dense)?": "ffn_out",
}
_NUMBER = re.compile(r"(?:^|(?<=\.))\d+\.")
_ATTENTION = re.compile("attn|attention", re.IGNORECASE)
# model_type -> the order of the rows of its joint projection of query, key and value: see `Family.joint`.
JOINT_ORDERS: dict[str, Literal["parts", "heads"]] = {
    **dict.fromkeys(("gpt2", "modernbert", "mpt", "phi3"), "parts"),
    **dict.fromkeys(("bloom", "deberta", "gpt_neox"), "heads"),
}
# Parts of names of modules that have no such role: other kinds of mixing, and small networks beside the two.
_OTHER = re.compile("linear_attn|mamba|norm|adapter|indexer|bottleneck")
# Layers in numbered blocks that stay dense: they choose experts, weigh them, or make the kernel of a convolution.
_AUXILIARY = re.compile(r"(^|\.)(router|gate|shared_expert_gate|conv_kernel_layer)(\.|$)")


def encoder_layers(model: nn.Module) -> list[str]:
    """Names of the prunable layers in numbered blocks of the base model, or of `model` where it has none.

    Left out are layers that choose or weigh experts, and convolutions with a single channel per group.
    """
    base = _base_of(model)
    return [name for name, module in layers_of(model).items() if _is_in_block(name, base) and not _is_depthwise(module)]


def _is_in_block(name: str, base: str) -> bool:
    inner = _inner(name, base)
    return inner is not None and bool(_NUMBER.search(inner)) and not _AUXILIARY.search(inner)


def _base_of(model: nn.Module) -> str:
    """The name of the base model in `model`; empty where it has none."""
    prefix, base = base_model(model)
    return prefix if base is not None else ""


def _inner(name: str, base: str) -> str | None:
    """A module's name inside the base model; None for one outside."""
    if not base:
        return name
    return name.removeprefix(f"{base}.") if name.startswith(f"{base}.") else None


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d) and 1 < module.groups == module.in_channels


def roles_of(model: nn.Module, layers: Sequence[str]) -> dict[str, list[str]]:
    """Role -> regular expressions of whole module names, one for all layers that differ in numbers alone.

    Roles: `query`, `key`, `value`, or `query_key_value` for a joint projection; `attention_output`; `ffn_in` and
    `ffn_out`, with `ffn_gate` in a gated network, or `ffn_gate_in` for a joint projection.

    Args:
        layers: names; those whose role is not known are left out.
    """
    base, modules = _base_of(model), layers_of(model)
    roles = {name: role for name in layers if (role := _role(_inner(name, base) or name)) is not None}
    found: dict[str, list[str]] = {}
    for name, role in roles.items():
        if role == "ffn_in" and _is_joint(name, modules, roles):
            role = "ffn_gate_in"
        expression = re.sub(r"(?<=\.)\d+(?=\\\.|$)", r"\\d+", re.escape(name))
        if expression not in (known := found.setdefault(role, [])):
            known.append(expression)
    return found


def _role(name: str) -> str | None:
    """The role that the name of a module inside the base model says."""
    if _OTHER.search(name):
        return None
    tail = _NUMBER.split(name)[-1]
    for expression, role in _BY_TAIL.items():
        if re.fullmatch(expression, tail):
            return role
    inside, _, last = name.rpartition(".")
    return (_IN_ATTENTION if _ATTENTION.search(inside) else _ELSEWHERE).get(last)


def _is_joint(name: str, modules: Mapping[str, nn.Module], roles: Mapping[str, str]) -> bool:
    """Whether a first matrix has twice as many rows as the second one beside it has columns."""
    parent = name.rpartition(".")[0]
    seconds = [
        modules[other] for other, role in roles.items() if role == "ffn_out" and other.rpartition(".")[0] == parent
    ]
    return len(seconds) == 1 and _sides(modules[name])[0] == 2 * _sides(seconds[0])[1]


def _sides(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    first, second = weight.shape[:2]
    return (second, first) if type(layer).__name__ == "Conv1D" else (first, second)
