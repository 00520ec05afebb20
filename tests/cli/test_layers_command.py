"""`hydraprune layers`: which layers of a model are pruned, by role, and what stays dense; its config alone is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_helpers import SIZES, model_of

from hydraprune.models.families import family_of_model
from hydraprune.models.layer_table import layer_table
from hydraprune.sparsity.coverage import coverage


def save_config(kind: str, folder: str = "model", **more: Any) -> None:
    """A folder without weights: nothing but the config is needed."""
    model = model_of(kind, **more)
    model.config.architectures = [type(model).__name__]  # type: ignore[union-attr]
    model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
    Path(folder, "model.safetensors").touch()


def rows_of(text: str) -> dict[str, list[str]]:
    """Name -> role, layers, shape, parameters, of the rows that have a name."""
    return {line.split()[-1]: line.split()[:-1] for line in text.splitlines() if len(line.split()) == 5}


def test_layers_by_role(hydraprune: Callable[..., Any], workplace: Path) -> None:
    save_config("llama")
    finished = hydraprune("layers", "model")
    assert finished.code == 0, finished.err
    rows = rows_of(finished.out)
    assert rows["model.layers.*.self_attn.k_proj"] == ["key", "2", "16x32", "1,024"]
    assert rows["model.layers.*.mlp.gate_proj"] == ["ffn_gate", "2", "64x32", "4,096"]
    assert rows["score"][0] == "outside"
    assert finished.out.index("model.layers.*.mlp.down_proj") < finished.out.index("stays dense")
    assert "LlamaForSequenceClassification of model" in finished.out
    assert "prunable: 18,432 of" in finished.out


def test_layers_that_a_pattern_takes(hydraprune: Callable[..., Any], workplace: Path) -> None:
    save_config("llama")
    finished = hydraprune("layers", "model", "pattern=ffn_channels")
    query = next(line for line in finished.out.splitlines() if "self_attn.q_proj" in line)
    assert query.startswith("not chosen ")
    assert rows_of(finished.out)["model.layers.*.mlp.up_proj"][0] == "ffn_in"
    finished = hydraprune("layers", "model", "pattern=4x1", "pattern.layers.exclude=[down]")
    assert rows_of(finished.out)["model.layers.*.mlp.down_proj"][0] == "excluded"


def test_weights_that_no_pruner_takes_are_named(hydraprune: Callable[..., Any], workplace: Path) -> None:
    save_config("mixtral")
    finished = hydraprune("layers", "model")
    rows = rows_of(finished.out)
    assert rows["model.layers.*.mlp.experts.gate_up_proj"][0] == "unsupported"


def test_a_model_of_another_task(hydraprune: Callable[..., Any], workplace: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    transformers.ViTForImageClassification(transformers.ViTConfig(**sizes)).save_pretrained("vit")
    finished = hydraprune("layers", "vit")
    assert finished.code == 0, finished.err
    assert rows_of(finished.out)["vit.layers.*.attention.q_proj"][:2] == ["query", "2"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nothing"], "MODEL=nothing: "),
        (["model", "pattern.layers.roles=[query]"], "pattern.layers.roles=query: matches no layer of this gpt2 model"),
        (["model", "pattern=5x1"], "5"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, hydraprune: Callable[..., Any], workplace: Path
) -> None:
    save_config("gpt2")
    finished = hydraprune("layers", *words)
    assert finished.code != 0
    assert expected in finished.err
    assert len(finished.err.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", SIZES)
def test_rows_add_up_to_the_model(kind: str) -> None:
    with torch.device("meta"):
        model = model_of(kind)
    family = family_of_model(model)
    covered = coverage(model, (), family)
    rows = layer_table(covered, family)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert sum(row.parameters for row in rows) + covered.small == total
    assert all(row.count * torch.Size(row.shape).numel() == row.parameters for row in rows)
