"""Checkpoints that hold a weight twice, or weights that are no floats, are refused by its name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from family_helpers import save_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.saved_weights import saved_weights
from hydraprune.utils.weights_files import stored_types

TWO = Labels(("no", "yes"))


def shards(folder: Path, *parts: dict[str, Tensor]) -> None:
    """Store a model in several files with an index, in place of one."""
    (folder / "model.safetensors").unlink()
    files = [f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    for file, part in zip(files, parts, strict=True):
        save_file(part, folder / file, metadata={"format": "pt"})
    places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        PretrainedModel("mine", str(folder)).load(TWO)
    assert raised.value.key == "model.path"
    return str(raised.value)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_a_weight_in_two_files_is_refused(kind: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, kind)
    state = load_file(tmp_path / "model.safetensors")
    names = sorted(state)
    half = len(names) // 2
    one, other = ({name: state[name] for name in part} for part in (names[:half], names[half:]))
    shards(tmp_path, one, other)
    assert PretrainedModel("mine", str(tmp_path)).load(TWO) is not None
    save_file({**other, names[0]: state[names[0]] + 1}, tmp_path / "model-00002-of-00002.safetensors")
    message = refusal(tmp_path)
    assert f"the weight {names[0]} is stored in model-00001-of-00002.safetensors and in model-00002" in message
    with pytest.raises(UserError, match="so does another file"):
        saved_weights(tmp_path, "MODEL")


@pytest.mark.parametrize(
    ("kind", "name", "again"),
    [
        ("bert", "bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.gamma"),
        ("roberta", "roberta.encoder.layer.1.output.LayerNorm.bias", "roberta.encoder.layer.1.output.LayerNorm.beta"),
        ("bert", "bert.encoder.layer.0.output.dense.weight", "encoder.layer.0.output.dense.weight"),
        ("gpt2", "transformer.wte.weight", "wte.weight"),
    ],
)
def test_a_weight_under_two_names_is_refused(kind: str, name: str, again: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, kind)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, again: state[name] + 1}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = refusal(tmp_path)
    assert name in message
    assert again in message
    assert "are the same weight" in message
    # Old names alone are those of the weights.
    state[again] = state.pop(name)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(PretrainedModel("mine", str(tmp_path)).load(TWO).get_parameter(name), state[again])


def test_a_name_twice_in_one_header_is_seen(tmp_path: Path) -> None:
    entry = '"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}'
    header = f"{{{entry},{entry}}}".encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    assert stored_types(tmp_path / "x.safetensors") == [("a", "I8"), ("a", "I8")]


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_quantized_weights_without_scales_are_refused(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, kind)
    state = load_file(tmp_path / "model.safetensors")
    name = next(name for name, weight in sorted(state.items()) if "layer" in name and weight.dim() == 2)
    state[name] = state[name].mul(100).to(dtype)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = refusal(tmp_path)
    assert name in message
    assert "quantized weights without their scales" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_and_integers_that_are_no_weights_are_loaded(dtype: torch.dtype, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    state = {name: weight.to(dtype) for name, weight in load_file(tmp_path / "model.safetensors").items()}
    state["bert.embeddings.position_ids"] = torch.arange(32)[None]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert PretrainedModel("mine", str(tmp_path)).load(TWO) is not None


def test_zeros_of_integers_are_counted_by_the_files(tmp_path: Path) -> None:
    weight = torch.ones(8, 8, dtype=torch.int8)
    weight[:4] = 0
    save_file({"layer.weight": weight, "position_ids": torch.arange(8)}, tmp_path / "model.safetensors")
    model = saved_weights(tmp_path, "MODEL")
    assert [(name, int((value == 0).sum())) for name, value in model.named_parameters()] == [("layer.weight", 32)]
