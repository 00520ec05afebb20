"""Model families: names of a family's modules by role, modules outside its encoder, and what may be replaced in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from hydraprune.models.classification_head import head_modules
from hydraprune.models.layer_roles import JOINT_ORDERS, encoder_layers, roles_of
from hydraprune.sparsity import Family
from hydraprune.sparsity.layer_weights import layers_of

_ATTRIBUTE = "hydraprune_family"
# Positions of a model without a limit.
_UNLIMITED = 1_000_000


@dataclass(frozen=True)
class ModelFamily(Family):
    """The facts about all models of one `config.model_type`.

    Args:
        name: the `model_type`.
        roles: role -> regular expressions that match whole module names. Roles: `query`, `key`,
            `value`, `attention_output`, `ffn_in`, `ffn_out`; `query_key_value` for a joint projection.
        outside: names of the modules outside the encoder (embedding projection, pooler, head); they
            are never pruned, and the head among them may be new.
        joint: order of the rows of a joint projection, see `Family`.
        standard_attention: whether attention goes through transformers' `AttentionInterface`, so that
            a faster function can replace it during training.
        attention_dropout: config field of the attention dropout. Where it is not zero, training on
            a CPU uses attention written out in PyTorch, which is faster than SDPA with dropout.
        lookup_embedding: whether the input embedding is used for nothing but looking up the ids of
            the inputs, so that only the rows in use need to be trained.
    """

    # Declared again so that the config's checks find their types in this module.
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outside: Sequence[str] = ()
    joint: Literal["parts", "heads"] | None = None
    standard_attention: bool = False
    attention_dropout: str | None = None
    lookup_embedding: bool = False


_BERT_ROLES = {
    "query": [r".*\.attention\.self\.query"],
    "key": [r".*\.attention\.self\.key"],
    "value": [r".*\.attention\.self\.value"],
    "attention_output": [r".*\.attention\.output\.dense"],
    "ffn_in": [r".*\.layer\.\d+\.intermediate\.dense"],
    "ffn_out": [r".*\.layer\.\d+\.output\.dense"],
}
_DISTILBERT_ROLES = {
    "query": [r".*\.attention\.q_lin"],
    "key": [r".*\.attention\.k_lin"],
    "value": [r".*\.attention\.v_lin"],
    "attention_output": [r".*\.attention\.out_lin"],
    "ffn_in": [r".*\.ffn\.lin1"],
    "ffn_out": [r".*\.ffn\.lin2"],
}
_GPT2_ROLES = {
    "query_key_value": [r".*\.attn\.c_attn"],
    "attention_output": [r".*\.attn\.c_proj"],
    "ffn_in": [r".*\.mlp\.c_fc"],
    "ffn_out": [r".*\.mlp\.c_proj"],
}


def _bert_like(name: str) -> ModelFamily:
    return ModelFamily(
        name,
        _BERT_ROLES,
        standard_attention=True,
        attention_dropout="attention_probs_dropout_prob",
        lookup_embedding=True,
    )


# model_type -> family. Their layers outside the encoder follow from the structure.
FAMILIES: dict[str, ModelFamily] = {
    **{kind: _bert_like(kind) for kind in ("bert", "roberta", "xlm-roberta", "camembert", "electra")},
    "distilbert": ModelFamily(
        "distilbert",
        _DISTILBERT_ROLES,
        standard_attention=True,
        attention_dropout="attention_dropout",
        lookup_embedding=True,
    ),
    "gpt2": ModelFamily("gpt2", _GPT2_ROLES, standard_attention=True, lookup_embedding=True),
}


def family_of(model_type: str, given: ModelFamily | None = None) -> ModelFamily | None:
    """The family of a `model_type`.

    Args:
        given: the user's own family, which is used for the models that it names.

    Returns:
        None for an unknown family.
    """
    return given if given is not None and given.name == model_type else FAMILIES.get(model_type)


def family_of_model(model: nn.Module) -> ModelFamily:
    """The family of a loaded model: the one attached by `attach_family`, else that of its `model_type`.

    What neither says of its layers (`roles`, `outside`) follows from the model's structure.
    """
    kind = model_type(model)
    given: ModelFamily = getattr(model, _ATTRIBUTE, None) or FAMILIES.get(kind) or ModelFamily(kind)
    if given.joint is None and kind in JOINT_ORDERS:
        given = replace(given, joint=JOINT_ORDERS[kind])
    if given.roles and given.outside:
        return given
    layers = encoder_layers(model)
    others = [name for name in layers_of(model) if name not in layers] if layers else head_modules(model)
    outside = given.outside or others
    # Those that are given come first: the first role that matches a name is its role.
    roles = {
        **given.roles,
        **{role: found for role, found in roles_of(model, layers).items() if role not in given.roles},
    }
    return replace(given, roles=roles, outside=outside, may_lack_outside=given.may_lack_outside or not given.outside)


def family_with_heads(model: nn.Module) -> ModelFamily:
    """`family_of_model`, with the number of attention heads that the model's config has."""
    return replace(family_of_model(model), heads=getattr(model.config, "num_attention_heads", None))


def attach_family(model: nn.Module, given: ModelFamily | None) -> None:
    """Let `family_of_model` find the user's own family; a saved model does not carry it."""
    if given is not None and given.name == model_type(model):
        setattr(model, _ATTRIBUTE, given)


def model_type(model: nn.Module) -> str:
    """`config.model_type` of a Hugging Face model."""
    return str(model.config.model_type)  # type: ignore[union-attr]


def max_positions(model: nn.Module) -> int:
    """The longest input of a model, in tokens; a blueprint will do.

    RoBERTa and its relatives count positions from behind the padding index, so their position
    embedding holds fewer positions than rows; it has that index as `padding_idx`.
    """
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or int(positions) <= 0:  # XLNet has -1
        return _UNLIMITED
    embedding = _padded_positions(model)
    return int(positions) if embedding is None else int(positions) - int(embedding.padding_idx or 0) - 1


def pads_positions(model: nn.Module) -> bool:
    """Whether a model counts positions from its padding index, as RoBERTa does."""
    return _padded_positions(model) is not None


def _padded_positions(model: nn.Module) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module
    return None
