"""Checkpoints that do not match their model: every key of every family renamed, dropped or reshaped."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from family_helpers import SIZES, save_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.checkpoint_use import CheckpointUse, checkpoint_use
from hydraprune.models.classification_head import head_modules, is_below
from hydraprune.models.pretrained import PretrainedModel

TWO, THREE = Labels(("no", "yes")), Labels(("a", "b", "c"))
State = dict[str, Tensor]


def rename(state: State, key: str) -> None:
    state[f"other.{key}"] = state.pop(key)


def drop(state: State, key: str) -> None:
    del state[key]


def reshape(state: State, key: str) -> None:
    state[key] = torch.cat([state[key], state[key]])


def change(folder: Path, by: Callable[[State], None]) -> None:
    state = load_file(folder / "model.safetensors")
    by(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def use(model: nn.Module) -> CheckpointUse:
    found = checkpoint_use(model)
    assert found is not None
    return found


# Their checkpoints have other names than their modules: transformers renames, splits or joins weights.
CONVERTED = {"gte", "mixtral", "nomic_bert"}


@pytest.mark.parametrize("change_of", [rename, drop, reshape])
@pytest.mark.parametrize("kind", sorted(SIZES.keys() - CONVERTED))
def test_a_weight_of_the_encoder_that_does_not_match_is_refused(
    kind: str, change_of: Callable[[State, str], None], tmp_path: Path
) -> None:
    model = save_checkpoint(tmp_path, kind)
    whole = load_file(tmp_path / "model.safetensors")
    keys = [key for key in whole if not is_below(key, head_modules(model))]
    for key in random.Random(f"{kind} {change_of.__name__}").sample(keys, k=3):
        state = dict(whole)
        change_of(state, key)
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError) as refused:
            PretrainedModel("mine", str(tmp_path)).load(THREE)
        message = str(refused.value)
        assert key.split(".")[-2] in message
        if change_of is reshape:
            assert str(list(whole[key].shape)) in message
            assert str(list(state[key].shape)) in message


@pytest.mark.parametrize("change_of", [rename, drop, reshape])
@pytest.mark.parametrize("kind", sorted(CONVERTED))
def test_a_weight_that_is_converted_and_does_not_match_is_refused(
    kind: str, change_of: Callable[[State, str], None], tmp_path: Path
) -> None:
    model = save_checkpoint(tmp_path, kind)
    whole = load_file(tmp_path / "model.safetensors")
    for key in [key for key in whole if not is_below(key, head_modules(model))][-3:]:
        state = dict(whole)
        change_of(state, key)
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=r"lacks|is \[|cannot be loaded"):
            PretrainedModel("mine", str(tmp_path)).load(THREE)


@pytest.mark.parametrize("kind", SIZES)
def test_only_the_head_may_be_new(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, kind)
    head = head_modules(model)
    assert use(PretrainedModel("mine", str(tmp_path)).load(TWO)).new == ()
    three = PretrainedModel("mine", str(tmp_path)).load(THREE)
    assert use(three).new
    assert all(is_below(name, head) for name in use(three).new)
    assert use(three).used + len(use(three).new) == sum(1 for _ in three.parameters())
    change(tmp_path, lambda state: [drop(state, key) for key in list(state) if is_below(key, head)])  # type: ignore[arg-type, return-value]
    assert set(use(PretrainedModel("mine", str(tmp_path)).load(TWO)).new) == {
        name for name, _ in model.named_parameters() if is_below(name, head)
    }
    with pytest.raises(UserError, match="lacks"):
        PretrainedModel("mine", str(tmp_path)).load()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
@pytest.mark.parametrize("kind", ["bert", "albert", "llama"])
def test_names_of_a_wrapper_are_refused_with_a_cure(kind: str, prefix: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, kind)
    change(tmp_path, lambda state: [state.update({f"{prefix}{key}": state.pop(key)}) for key in list(state)])  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="inside the wrapper"):
        PretrainedModel("mine", str(tmp_path)).load(TWO)


def test_names_below_another_name_are_refused_with_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    change(tmp_path, lambda state: [state.update({f"trainer.net.{key}": state.pop(key)}) for key in list(state)])  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match=r"their names begin with trainer\.net\."):
        PretrainedModel("mine", str(tmp_path)).load(TWO)


@pytest.mark.usefixtures("bad_input")
def test_an_adapter_beside_the_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter beside the model"):
        PretrainedModel("mine", str(tmp_path)).load(TWO)


def test_half_a_checkpoint_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "mpnet")
    change(tmp_path, lambda state: [drop(state, key) for key in list(state)[::2]])  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="lacks"):
        PretrainedModel("mine", str(tmp_path)).load(TWO)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("bert", "intermediate_size", 32), ("roberta", "max_position_embeddings", 99), ("llama", "vocab_size", 50)],
)
def test_sizes_that_config_and_weights_disagree_about_are_named(
    kind: str, field: str, value: int, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, kind)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    for labels in (TWO, THREE, None):
        with pytest.raises(UserError, match=rf"\[.*{value}.*\] by its config\.json"):
            PretrainedModel("mine", str(tmp_path)).load(labels)


def test_layers_that_the_config_does_not_count_are_reported(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    found = use(PretrainedModel("mine", str(tmp_path)).load(TWO))
    assert len(found.lost) == 16
    assert all(".layer.1." in name for name in found.lost)


def test_a_head_that_is_not_used_is_none_of_the_encoder(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    change(tmp_path, lambda state: state.update({"cls.predictions.bias": torch.zeros(3)}))
    found = use(PretrainedModel("mine", str(tmp_path)).load(TWO))
    assert found.unused == ("cls.predictions.bias",)
    assert found.lost == ()
