"""Slimmed models: the outputs of the original, in every family, through files and `pipeline`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from slim_helpers import KINDS, random_model, save, slimmable, zero_channels, zero_heads
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hydraprune.deploy import load_slim
from hydraprune.deploy.slim_check import difference, outputs_of, sample_batch
from hydraprune.deploy.slim_model import slim_model
from hydraprune.errors import UserError
from hydraprune.models.encoder_layers import encoder_layers
from hydraprune.models.pretrained import PretrainedModel


def assert_same_outputs(ours: nn.Module, original: Any, batch: Any) -> None:
    found = difference(outputs_of(ours, batch), original)
    assert found.hidden < 1e-5, found
    assert found.logits < 1e-5, found


@pytest.mark.parametrize("kind", KINDS)
def test_a_slimmed_model_gives_the_outputs_of_the_original(kind: str, tmp_path: Path) -> None:
    model = slimmable(kind)
    batch = sample_batch(model)
    original, before = outputs_of(model, batch), sum(p.numel() for p in model.parameters())
    slimmed = slim_model(model)
    assert [layer.heads for layer in slimmed.layers] == [(4, 2), (4, 3)]
    assert [layer.channels for layer in slimmed.layers] == [(64, 39), (64, 49)]
    assert not slimmed.plain
    assert_same_outputs(model, original, batch)
    folder = save(model, tmp_path / "slim")
    loaded = load_slim(folder)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert_same_outputs(loaded, original, batch)
    # A head has 8 rows in three matrices of 32 columns, their biases, and 8 columns in a fourth.
    removed = 3 * (4 * 8 * 32 + 3 * 8) + 40 * (2 * 32 + 1)
    assert sum(p.numel() for p in loaded.parameters()) == before - removed


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_refuses_layers_of_different_sizes(kind: str, tmp_path: Path) -> None:
    model = slimmable(kind)
    slim_model(model)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    for loader in (AutoModelForSequenceClassification, transformers.AutoModel, type(model)):
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            loader.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_head_goes_transformers_loads_the_result(kind: str, tmp_path: Path) -> None:
    model = random_model(kind)
    first, second = encoder_layers(model)
    zero_channels(first, list(range(31)), "row")
    zero_channels(second, list(range(20, 52)), "column")
    batch = sample_batch(model)
    original = outputs_of(model, batch)
    slimmed = slim_model(model)
    assert slimmed.plain
    assert slimmed.padding == 1
    assert [layer.channels for layer in slimmed.layers] == [(64, 33), (64, 32)]
    folder = save(model, tmp_path / "slim")
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert_same_outputs(plain, original, batch)
    assert_same_outputs(load_slim(folder), original, batch)
    assert {layer.channels for layer in encoder_layers(plain)} == {33}


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_a_slimmed_model_can_be_slimmed_further(kind: str, tmp_path: Path) -> None:
    model = slimmable(kind)
    slim_model(model)
    model = load_slim(save(model, tmp_path / "once"))
    first, second = encoder_layers(model)
    zero_heads(first, [0], "output")  # heads 0 and 2 of the original are left
    zero_channels(second, [0, 1, 2], "row")
    batch = sample_batch(model)
    original = outputs_of(model, batch)
    slim_model(model)
    assert model.config.hydraprune_slim["layers"] == [  # type: ignore[union-attr]
        {"heads": [2], "channels": 39},
        {"heads": [0, 1, 3], "channels": 46},
    ]
    assert_same_outputs(load_slim(save(model, tmp_path / "twice")), original, batch)


def test_one_head_and_one_channel_stay(tmp_path: Path) -> None:
    model = random_model("bert")
    for layer, at in zip(encoder_layers(model), ("value", "output"), strict=True):
        zero_heads(layer, range(4), at)
        zero_channels(layer, list(range(64)), "row" if at == "value" else "column")
    batch = sample_batch(model)
    original = outputs_of(model, batch)
    slimmed = slim_model(model)
    assert {(layer.heads[1], layer.channels[1]) for layer in slimmed.layers} == {(1, 1)}
    assert_same_outputs(load_slim(save(model, tmp_path / "slim")), original, batch)


def test_a_slimmed_model_works_in_a_pipeline(tmp_path: Path) -> None:
    model = slimmable("bert")
    texts = ["a good film", "never again, and that is all there is to say"]
    folder = save(model, tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)(texts)
    slim_model(model)
    slim = load_slim(save(model, tmp_path / "slim"))
    found = transformers.pipeline(
        "text-classification", model=slim, tokenizer=AutoTokenizer.from_pretrained(tmp_path / "slim")
    )(texts)
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


def test_a_slimmed_model_trains_and_keeps_its_sizes_when_it_is_saved(tmp_path: Path) -> None:
    model = slimmable("mpnet")
    slim_model(model)
    slim = load_slim(save(model, tmp_path / "slim")).train()
    batch = sample_batch(slim)
    slim(**batch, labels=torch.tensor([0, 1] * 4)).loss.backward()
    assert all(bool(layer.value.weight.grad.any()) for layer in encoder_layers(slim))  # type: ignore[union-attr]
    again = load_slim(save(slim, tmp_path / "again"))
    assert_same_outputs(again, outputs_of(slim, batch), batch)


def test_the_blueprint_of_a_slimmed_model_has_its_shapes(tmp_path: Path) -> None:
    model = slimmable("roberta")
    slim_model(model)
    blueprint = PretrainedModel("slim", str(save(model, tmp_path / "slim"))).blueprint()
    assert {n: p.shape for n, p in blueprint.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_a_dense_model_is_refused() -> None:
    with pytest.raises(UserError, match="nothing can be removed"):
        slim_model(random_model("bert"))


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(UserError, match="is a gpt2 model, and slim knows the layers of bert, "):
        slim_model(random_model("gpt2"))


LAYER = {"heads": [0, 2], "channels": 39}
BROKEN = {
    "no object": ([1], "does not give the sizes"),
    "no layers": ({"version": 1}, "does not give the sizes"),
    "another version": ({"version": 2, "layers": [LAYER, LAYER]}, "is of version 2"),
    "too few layers": ({"layers": [LAYER]}, "has 1 layers, and the model 2"),
    "a head too many": ({"layers": [LAYER, {"heads": [0, 4], "channels": 49}]}, "head 4"),
    "no heads": ({"layers": [LAYER, {"heads": [], "channels": 49}]}, "does not give the sizes"),
    "heads twice": ({"layers": [LAYER, {"heads": [1, 1], "channels": 49}]}, "does not give the sizes"),
    "no channels": ({"layers": [LAYER, {"heads": [1], "channels": 0}]}, "does not give the sizes"),
    "a fraction": ({"layers": [LAYER, {"heads": [1], "channels": 1.5}]}, "does not give the sizes"),
    "other sizes": ({"layers": [LAYER, LAYER]}, "give the config.json that belongs to these weights"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_sizes_that_are_not_those_of_the_weights_are_refused_in_one_line(
    what: str, tmp_path: Path, bad_input: None
) -> None:
    model = slimmable("bert")
    slim_model(model)
    folder, (written, reason) = save(model, tmp_path / "slim"), BROKEN[what]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hydraprune_slim": written}))
    with pytest.raises(UserError) as caught:
        load_slim(folder)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"folder={folder}: ")
    assert "\n" not in str(caught.value)
