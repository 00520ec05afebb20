"""Saving a trained model and its tokenizer."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from hydraprune.models.compact_embedding import expand
from hydraprune.utils.atomic import atomic_write

_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "cache_dir", "token")


def save_model(model: nn.Module, tokenizer: Any, directory: Path) -> Path:
    """Write `directory`/model by `save_pretrained`, atomically; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    target = directory / "model"
    for leftover in directory.glob(".model.*.tmp"):  # of a process that was killed while it saved
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_write(target) as temporary:
        write_model(model, tokenizer, temporary)
    return target


def write_model(model: nn.Module, tokenizer: Any | None, folder: Path) -> None:
    """Write a model and its tokenizer, if it has one, into `folder` by `save_pretrained`.

    Raises:
        OSError: they cannot be written.
    """
    expand(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.0)  # turns -0.0 into 0.0: zeros of one kind compress better
    try:
        model.save_pretrained(folder)  # type: ignore[operator]
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(folder)) from error
    _name_older_rope(folder / "config.json")
    if tokenizer is None:
        return
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        # The options of the last call do not belong to the model.
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)
    _make_portable(folder / "tokenizer_config.json")


# What transformers 4 calls the base of rotary positions, by model type; `rope_theta` elsewhere.
_OLDER_BASE = {"gpt_neox": "rotary_emb_base", "modernbert": "global_rope_theta"}
_OLDER_LOCAL_BASE = {"gemma3_text": "rope_local_base_freq", "modernbert": "local_rope_theta"}
_OLDER_SHARE = {"gpt_neox": "rotary_pct"}


def _name_older_rope(path: Path) -> None:
    """Write rotary positions into a model's config under the names of transformers 4 too.

    transformers 5 writes `rope_parameters`, which version 4 does not read: it takes the default base without a word,
    and computes other outputs (findings/transformers-5-rope.sh). Version 5 reads its own.
    """
    if not path.is_file():
        return
    values = json.loads(path.read_text(encoding="utf-8"))
    rope, kind = values.get("rope_parameters"), values.get("model_type")
    if not isinstance(rope, dict):
        return
    local = rope.get("sliding_attention")
    whole = dict(rope.get("full_attention", rope))
    older = {_OLDER_BASE.get(kind, "rope_theta"): whole.pop("rope_theta", None)}
    older[_OLDER_SHARE.get(kind, "partial_rotary_factor")] = whole.pop("partial_rotary_factor", None)
    if whole.get("rope_type", "default") != "default":
        older["rope_scaling"] = whole
    if isinstance(local, dict) and kind in _OLDER_LOCAL_BASE:
        older[_OLDER_LOCAL_BASE[kind]] = local.get("rope_theta")
    values |= {name: value for name, value in older.items() if value is not None and name not in values}
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _make_portable(config: Path) -> None:
    """Take out of a tokenizer's config what holds for this machine or this version of transformers alone.

    transformers 5 notes there how the tokenizer was loaded, and names a plain fast tokenizer by a class that
    transformers 4 does not have; both versions know its older name.
    """
    if not config.is_file():
        return
    values = json.loads(config.read_text(encoding="utf-8"))
    for key in _OF_THIS_MACHINE:
        values.pop(key, None)
    if values.get("tokenizer_class") == "TokenizersBackend":
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
