"""`hydraprune slim MODEL`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from slim_helpers import random_model, save, slimmable, zero_channels

from hydraprune.deploy import accelerate, load_slim
from hydraprune.deploy import slim_model as slim_module
from hydraprune.deploy.slim_removal import Removal
from hydraprune.models.encoder_layers import encoder_layers

Command = Callable[..., Any]


def test_slim_writes_a_folder_beside_the_model(hydraprune: Command, workplace: Path) -> None:
    save(slimmable("bert"), workplace / "mine")
    done = hydraprune("slim", "mine")
    assert done.code == 0, done.err
    assert "bert.encoder.layer.0      4 -> 2        64 -> 39" in done.out
    assert "bert.encoder.layer.1      4 -> 3        64 -> 49" in done.out
    assert "MB in single precision" in done.out
    assert "largest difference of outputs: " in done.out
    assert "load_slim(" in done.out
    folder = workplace / "mine-slim"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
    assert not list(workplace.glob(".*.tmp"))


def test_the_other_commands_read_the_result(hydraprune: Command, workplace: Path) -> None:
    save(slimmable("electra"), workplace / "mine")
    assert hydraprune("slim", "mine", "--out", "deep/er").code == 0
    shown = hydraprune("verify", "deep/er")
    assert shown.code == 0, shown.err
    assert "39x32" in shown.out
    words = ("task=toy", "task.evaluation_examples=32", "task.train_examples=32", "training.device=cpu")
    ours, original = hydraprune("eval", "deep/er", *words), hydraprune("eval", "mine", *words)
    assert ours.code == 0, ours.err
    assert ours.out == original.out
    compact = hydraprune("export", "deep/er", "--to", "compact", "--out", "compact")
    assert compact.code == 0, compact.err
    ids = torch.randint(1, 20, (2, 9))
    with torch.no_grad():
        fast, slim = accelerate("compact")(ids).logits, load_slim("deep/er")(ids).logits
    assert torch.allclose(fast, slim, atol=1e-5)


def test_a_uniform_result_is_plain(hydraprune: Command, workplace: Path) -> None:
    model = random_model("distilbert")
    for layer, count in zip(encoder_layers(model), (40, 39), strict=True):
        zero_channels(layer, list(range(count)), "row")
    save(model, workplace / "mine")
    done = hydraprune("slim", "mine")
    assert "transformers loads it as it is" in done.out
    assert "and 1 of zeros" in done.out
    assert "padding: 1 channels of zeros beside 49 others" in done.out
    assert json.loads((workplace / "mine-slim" / "config.json").read_text())["hidden_dim"] == 25


def test_a_model_without_a_tokenizer_is_slimmed_without(hydraprune: Command, workplace: Path) -> None:
    slimmable("bert").save_pretrained(workplace / "mine")  # type: ignore[operator]
    done = hydraprune("slim", "mine")
    assert done.code == 0, done.err
    assert "without a tokenizer" in done.out


def test_half_precision_is_read_and_the_type_that_is_written_said(hydraprune: Command, workplace: Path) -> None:
    save(slimmable("bert").to(torch.bfloat16), workplace / "mine")
    done = hydraprune("slim", "mine")
    assert done.code == 0, done.err
    assert "written in single precision, and stored in MODEL as bfloat16" in done.out


@pytest.mark.usefixtures("bad_input")
def test_what_a_user_has_is_not_overwritten(hydraprune: Command, workplace: Path) -> None:
    save(slimmable("bert"), workplace / "mine")
    (workplace / "full").mkdir()
    (workplace / "full" / "notes.txt").write_text("mine")
    (workplace / "file").write_text("mine")
    for out in ("full", "file", "mine", "file/below"):
        refused = hydraprune("slim", "mine", "--out", out)
        assert refused.code == 2
        assert f"--out {out}: " in refused.err
        assert refused.err.count("\n") == 1
    (workplace / "empty").mkdir()
    assert hydraprune("slim", "mine", "--out", "empty").code == 0
    assert (workplace / "full" / "notes.txt").read_text() == (workplace / "file").read_text() == "mine"


@pytest.mark.usefixtures("bad_input")
def test_bad_models_are_refused_in_one_line(hydraprune: Command, workplace: Path) -> None:
    save(random_model("bert"), workplace / "dense")
    save(random_model("gpt2"), workplace / "gpt2")
    (workplace / "empty").mkdir()
    for words, reason in (
        (("dense",), "MODEL=dense: nothing can be removed"),
        (("gpt2",), "MODEL=gpt2: is a gpt2 model"),
        (("empty",), "MODEL=empty: "),
        (("./nowhere",), "no such file or folder"),
    ):
        refused = hydraprune("slim", *words)
        assert refused.code == 2
        assert reason in refused.err
        assert refused.err.count("\n") == 1
    assert not list(workplace.glob("*-slim"))


def test_a_model_with_other_outputs_is_not_written(
    hydraprune: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = slim_module.removable_channels

    def without_bias(*arguments: Any) -> Removal:
        removal = whole(*arguments)
        return Removal(removal.kept, removal.bias * 0)

    monkeypatch.setattr(slim_module, "removable_channels", without_bias)
    save(slimmable("bert"), workplace / "mine")
    refused = hydraprune("slim", "mine")
    assert refused.code == 2
    assert "does not give its outputs" in refused.err
    assert sorted(path.name for path in workplace.iterdir()) == ["mine"]
