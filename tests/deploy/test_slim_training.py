"""Training so that slimming pays: heads and channels in one run, then blocks in what is left, through every export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compact_helpers import logits_of, read_by_description
from saved_run_helpers import report_of, run_folders

from hydraprune.deploy import accelerate, load_slim
from hydraprune.deploy.compact_file import COMPACT_FILE
from hydraprune.models.encoder_layers import encoder_layers

Command = Callable[..., Any]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_heads_and_channels_are_pruned_then_removed_then_blocks_in_the_rest(
    train: Command, hydraprune: Command, small: tuple[str, ...], workplace: Path
) -> None:
    done = train(*small, "pattern=slim", "training.epochs=2")
    assert done.code == 0, done.err
    assert "slim holds in the saved model" in done.out
    (run,) = run_folders(workplace / "outputs", "slim")
    (dense,) = run_folders(workplace / "outputs", "dense")
    assert "transformers alone can load it" in (run / "model" / "README.md").read_text()
    slimmed = hydraprune("slim", str(run), "--out", "slimmed")
    assert slimmed.code == 0, slimmed.err
    layers = encoder_layers(load_slim("slimmed"))
    # 67 % of 8 heads and of 128 units of 4 channels.
    assert sum(layer.heads for layer in layers) == 3
    assert sum(layer.channels for layer in layers) == 4 * (128 - 85)
    assert all(layer.channels % 4 == 0 for layer in layers)
    sizes = [(layer.heads, layer.channels) for layer in layers]
    again = ("pattern=4x1", "pattern.target_sparsity=0.7", "dense.source=slimmed", f"distill.teacher={dense / 'model'}")
    done = train(*small, *again, "training.epochs=2")
    assert done.code == 0, done.err
    (run,) = run_folders(workplace / "outputs", "4x1")
    prunable = sum(layer.channels for layer in layers) * 2 * 64 + sum(layer.heads for layer in layers) * 4 * 16 * 64
    units = report_of(run)["units"]
    assert units["total"] == prunable / 4
    assert units["pruned"] == int(units["total"] * 0.7)
    verified = hydraprune("verify", str(run), "--pattern", "4x1")
    assert verified.code == 0, verified.out
    card = (run / "model" / "README.md").read_text()
    assert "load_slim(folder)" in card
    assert "transformers alone" not in card
    assert "the slimmed model it was pruned from: accuracy" in card

    model = load_slim(run / "model")
    assert [(layer.heads, layer.channels) for layer in encoder_layers(model)] == sizes
    expected = logits_of(model)
    exported = hydraprune("export", str(run), "--to", "compact", "--out", "compact")
    assert exported.code == 0, exported.err
    for folder in (run, "compact"):
        assert torch.allclose(logits_of(accelerate(folder)), expected, atol=1e-5)
    _check_sizes(Path("compact"))


def _check_sizes(folder: Path) -> None:
    """The matrices of a compact file have the sizes that docs/compact_format.md finds in config.json."""
    config, weights = json.loads((folder / "config.json").read_text()), read_by_description(folder / COMPACT_FILE)
    hidden = config["hidden_size"]
    head = hidden // config["num_attention_heads"]
    for number, layer in enumerate(config["hydraprune_slim"]["layers"]):
        block, wide = f"bert.encoder.layer.{number}", len(layer["heads"]) * head
        assert weights[f"{block}.attention.self.query.weight"].shape == (wide, hidden)
        assert weights[f"{block}.attention.output.dense.weight"].shape == (hidden, wide)
        assert weights[f"{block}.intermediate.dense.weight"].shape == (layer["channels"], hidden)
        assert weights[f"{block}.output.dense.weight"].shape == (hidden, layer["channels"])
