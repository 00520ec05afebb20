"""Training so that slimming pays: heads and channels in one run, then blocks in what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_run_helpers import run_folders

from hydraprune.deploy import load_slim
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
    slimmed = hydraprune("slim", str(run), "--out", "slimmed")
    assert slimmed.code == 0, slimmed.err
    layers = encoder_layers(load_slim("slimmed"))
    # 67 % of 8 heads and of 128 units of 4 channels.
    assert sum(layer.heads for layer in layers) == 3
    assert sum(layer.channels for layer in layers) == 4 * (128 - 85)
    assert all(layer.channels % 4 == 0 for layer in layers)
    done = train(*small, "pattern=4x1", "training.epochs=2", "dense.source=slimmed")
    assert done.code == 0, done.err
    (run,) = run_folders(workplace / "outputs", "4x1")
    verified = hydraprune("verify", str(run), "--pattern", "4x1")
    assert verified.code == 0, verified.out
    again = encoder_layers(load_slim(run / "model"))
    assert [(layer.heads, layer.channels) for layer in again] == [(layer.heads, layer.channels) for layer in layers]
