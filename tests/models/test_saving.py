"""Saved models: zeros without a sign, and tokenizers that other machines and versions of transformers load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import model_of
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from hydraprune.models.saving import save_model, write_model
from hydraprune.models.tiny import TinyModel


@pytest.fixture
def plain_tokenizer(tmp_path: Path) -> Path:
    """A tokenizer that belongs to no family, saved by transformers."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    made.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_zeros_have_no_sign(tmp_path: Path) -> None:
    model = model_of("bert")
    with torch.no_grad():
        for weight in model.parameters():
            kept = torch.arange(weight.numel()).view(weight.shape) % 3 == 0
            weight.copy_(torch.where(kept, weight, -0.0))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert any(bool(torch.signbit(weight[weight == 0]).any()) for weight in before.values())
    saved = load_file(save_model(model, TinyModel("tiny", 32, 1, 2, 32).tokenizer(), tmp_path) / "model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in before.items())
    assert not any(bool(torch.signbit(weight[weight == 0]).any()) for weight in saved.values())


def test_a_plain_tokenizer_is_saved_under_the_name_that_both_versions_know(
    plain_tokenizer: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(plain_tokenizer)
    folder = save_model(model_of("bert"), tokenizer, tmp_path / "run")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only", "name_or_path"} & set(config)
    assert str(tmp_path) not in (folder / "tokenizer_config.json").read_text()
    again = AutoTokenizer.from_pretrained(folder)
    assert again("good bad new")["input_ids"] == tokenizer("good bad new")["input_ids"] == [2, 3, 0]


def test_a_tokenizer_of_a_family_keeps_its_class(tmp_path: Path) -> None:
    tokenizer = TinyModel("tiny", 32, 1, 2, 32).tokenizer()
    folder = save_model(model_of("bert"), tokenizer, tmp_path)
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"
    assert AutoTokenizer.from_pretrained(folder)("good food")["input_ids"] == tokenizer("good food")["input_ids"]


ROPE = {
    "llama": ({"rope_theta": 300000.0}, {"rope_theta": 300000.0}),
    "gpt_neox": ({"rope_theta": 300000.0}, {"rotary_emb_base": 300000.0, "rotary_pct": 0.25}),
    "gemma3_text": ({"rope_theta": 300000.0}, {"rope_theta": 300000.0, "rope_local_base_freq": 10000.0}),
    "modernbert": ({"rope_theta": 300000.0}, {"global_rope_theta": 300000.0, "local_rope_theta": 10000.0}),
}


@pytest.mark.parametrize("kind", sorted(ROPE))
def test_rotary_positions_have_their_names_of_transformers_4_too(kind: str, tmp_path: Path) -> None:
    """Version 4 would take its default base without a word: findings/transformers-5-rope.sh."""
    change, older = ROPE[kind]
    model = model_of(kind)
    config: Any = model.config
    (config.rope_parameters.get("full_attention") or config.rope_parameters).update(change)
    write_model(model, None, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in older} == older
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == config.rope_parameters


def test_scaled_rotary_positions_too(tmp_path: Path) -> None:
    model = model_of("llama")
    model.config.rope_parameters = {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}  # type: ignore[union-attr]
    write_model(model, None, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["rope_theta"], saved["rope_scaling"]) == (5e5, {"rope_type": "linear", "factor": 4.0})
