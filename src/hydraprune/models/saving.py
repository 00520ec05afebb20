"""Saved models: written whole, with a card that says what they are."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from hydraprune.models.compact_embedding import expand


def save_model(model: nn.Module, tokenizer: Any, directory: Path) -> Path:
    """Write `directory`/model in Hugging Face's form: whole, or not at all, and on the disk before this returns.

    Raises:
        OSError: it cannot be written.
    """
    expand(model)
    target = directory / "model"
    temporary = directory / f".model.{os.getpid()}.tmp"
    for left in directory.glob(".model.*.tmp"):  # of a run that was cut while it saved
        shutil.rmtree(left, ignore_errors=True)
    try:
        model.save_pretrained(temporary)  # type: ignore[operator]
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(temporary)) from error
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        # What the last call asked for is no part of the model.
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(temporary)
    for file in (file for file in temporary.rglob("*") if file.is_file()):
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
    if target.is_symlink():
        target.unlink()  # what is behind it is not ours
    elif target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)
    return target
