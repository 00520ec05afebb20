"""Saving a trained model and its tokenizer."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from hydraprune.models.compact_embedding import expand
from hydraprune.utils.atomic import atomic_write


def save_model(model: nn.Module, tokenizer: Any, directory: Path) -> Path:
    """Write `directory`/model by `save_pretrained`, atomically; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    expand(model)
    target = directory / "model"
    for leftover in directory.glob(".model.*.tmp"):  # of a process that was killed while it saved
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_write(target) as temporary:
        try:
            model.save_pretrained(temporary)  # type: ignore[operator]
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error), str(temporary)) from error
        if backend := getattr(tokenizer, "backend_tokenizer", None):
            # The options of the last call do not belong to the model.
            backend.no_truncation()
            backend.no_padding()
        tokenizer.save_pretrained(temporary)
    return target
