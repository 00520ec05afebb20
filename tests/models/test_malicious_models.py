"""Malicious model folders: no code in them is ever run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from hydraprune.errors import UserError
from hydraprune.models.pretrained import PretrainedModel

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.made),)


def zipped(value: object, file: Path) -> None:
    torch.save({"weight": value}, file)


def legacy(value: object, file: Path) -> None:
    torch.save({"weight": value}, file, _use_new_zipfile_serialization=False)


def bare(value: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_a_malicious_pickle_is_refused_in_one_line(write: Callable[[object, Path], None], tmp_path: Path) -> None:
    folder, made = tmp_path / "model", tmp_path / "ran"
    BertConfig(**SIZES).save_pretrained(folder)
    write(Evil(made), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="are a pickle that holds more than weights, which is never run"):
        PretrainedModel("x", str(folder)).load()
    assert not made.exists()
    # An unrestricted load does run it.
    with suppress(RuntimeError):
        torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert made.is_dir()


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    code = {"auto_map": {"AutoConfig": "mine.C", "AutoModelForSequenceClassification": "mine.M"}}
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    for kind in ({"model_type": "strange"}, {"model_type": "bert", **SIZES}):
        (tmp_path / "config.json").write_text(json.dumps({**kind, **code}))
        with pytest.raises(UserError) as refused:
            PretrainedModel("x", str(tmp_path)).load()
        assert "\n" not in str(refused.value)
        assert "trust_remote_code" not in str(refused.value)
        assert not (tmp_path / "ran").exists()


def test_attention_kernels_from_the_hub_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    for key in ("attn_implementation", "_attn_implementation"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **SIZES, key: "evil/kernel@main"}))
        with pytest.raises(UserError, match="asks for the code of evil/kernel@main"):
            PretrainedModel("x", str(tmp_path)).config()
