"""Layers of 41 families of Hugging Face: which are the encoder's, and their roles, found from the structure."""

from __future__ import annotations

import re

import pytest
import torch
from family_helpers import SIZES, model_of
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification

from hydraprune.models.classification_head import head_modules, is_below
from hydraprune.models.families import FAMILIES, ModelFamily, attach_family, family_of_model
from hydraprune.models.layer_roles import encoder_layers, roles_of
from hydraprune.sparsity import Family

SEPARATE = {"query", "key", "value", "attention_output"}
JOINT = {"query_key_value", "attention_output"}
PLAIN, GATED, JOINT_GATE = {"ffn_in", "ffn_out"}, {"ffn_in", "ffn_gate", "ffn_out"}, {"ffn_gate_in", "ffn_out"}
# model_type -> roles, and the layers of both blocks together. Written down from the modules of each model.
EXPECTED: dict[str, tuple[set[str], int]] = {
    **dict.fromkeys(("bert", "roberta", "camembert", "xlm-roberta", "electra", "distilbert"), (SEPARATE | PLAIN, 12)),
    **dict.fromkeys(("big_bird", "ernie", "megatron-bert", "rembert", "roformer", "mpnet"), (SEPARATE | PLAIN, 12)),
    **dict.fromkeys(("gpt_neo", "opt", "squeezebert"), (SEPARATE | PLAIN, 12)),
    **dict.fromkeys(("bloom", "gpt2", "gpt_neox", "mpt"), (JOINT | PLAIN, 8)),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text"), (SEPARATE | GATED, 14)),
    **dict.fromkeys(("eurobert", "gte", "nomic_bert"), (SEPARATE | GATED, 14)),
    **dict.fromkeys(("modernbert", "phi3"), (JOINT | JOINT_GATE, 8)),
    # Projections of positions are layers without a role.
    "deberta-v2": (SEPARATE | PLAIN, 16),
    "deberta": (JOINT | PLAIN, 12),
    "albert": (SEPARATE | PLAIN, 6),  # both blocks share their layers
    "bart": (SEPARATE | PLAIN, 32),
    "t5": (SEPARATE | PLAIN, 32),
    "mixtral": (SEPARATE, 8),  # experts are packed
    "xlnet": (PLAIN, 4),  # attention is packed
    "longformer": (SEPARATE | PLAIN, 18),
    "convbert": (SEPARATE | PLAIN, 16),
    "mobilebert": (SEPARATE | PLAIN, 30),
}


def test_every_family_is_expected() -> None:
    assert EXPECTED.keys() == SIZES.keys()


@pytest.mark.parametrize("kind", EXPECTED)
def test_layers_of_numbered_blocks_are_the_encoder(kind: str) -> None:
    model = model_of(kind)
    layers = encoder_layers(model)
    roles, count = EXPECTED[kind]
    assert len(layers) == count
    assert roles_of(model, layers).keys() == roles
    assert not any(is_below(f"{name}.", head_modules(model)) for name in layers)


@pytest.mark.parametrize("kind", FAMILIES)
def test_known_families_and_their_structure_agree(kind: str) -> None:
    model, known = model_of(kind), FAMILIES[kind]
    layers = encoder_layers(model)
    found = Family(kind, roles_of(model, layers))
    assert [found.role_of(name) for name in layers] == [known.role_of(name) for name in layers]
    assert None not in {found.role_of(name) for name in layers}


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_layer_has_at_most_one_role_and_an_expression_finds_all_blocks(kind: str) -> None:
    model = model_of(kind)
    family = family_of_model(model)
    for name in encoder_layers(model):
        roles = [role for role, exprs in family.roles.items() if any(re.fullmatch(e, name) for e in exprs)]
        assert len(roles) <= 1
    expressions = [expression for exprs in family.roles.values() for expression in exprs]
    assert len(set(expressions)) == len(expressions)


def test_routers_of_experts_and_depthwise_convolutions_stay_dense() -> None:
    config = AutoConfig.for_model(
        "qwen2_moe", vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4,
    )  # fmt: skip
    names = encoder_layers(AutoModelForCausalLM.from_config(config))
    assert any("shared_expert.up_proj" in name for name in names)
    assert not any("gate" in name and "gate_proj" not in name for name in names)

    block = nn.ModuleDict({"dw": nn.Conv1d(8, 8, 3, groups=8), "pw": nn.Conv1d(8, 8, 1), "one": nn.Conv1d(1, 4, 3)})
    model = nn.ModuleDict({"layers": nn.ModuleList([block])})
    assert encoder_layers(model) == ["layers.0.pw", "layers.0.one"]


def test_models_of_other_tasks_have_the_same_layers() -> None:
    sizes = {**SIZES["llama"], "vocab_size": 64}
    names = encoder_layers(AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes)))
    assert len(names) == 14
    config = AutoConfig.for_model("vit", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32)
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(config)
    layers = encoder_layers(model)
    assert (len(layers), roles_of(model, layers).keys()) == (12, SEPARATE | PLAIN)


def test_a_model_without_numbered_blocks_has_no_layers() -> None:
    assert encoder_layers(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))) == []
    assert encoder_layers(nn.ModuleDict({"a": nn.Linear(4, 4)})) == []


def test_given_roles_take_precedence_and_the_others_are_found() -> None:
    model = model_of("longformer")
    attach_family(model, ModelFamily("longformer", {"query": [r".*\.query", r".*\.query_global"]}))
    family = family_of_model(model)
    name = "longformer.encoder.layer.0.attention.self."
    assert family.role_of(f"{name}query_global") == "query"
    assert family.role_of(f"{name}key") == "key"
    assert family.is_outside("classifier.dense")
