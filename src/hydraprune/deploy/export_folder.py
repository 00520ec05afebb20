"""The folder of an export: where it is, and what of the model lies beside the weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.hub_access import at_home, is_local

DETAILS_FILE = "export.json"
# Weights, of whatever library, and what may be a pickle.
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".xml", ".gguf", ".pkl"}


def target_of(model: str, form: str, out: str | None) -> Path:
    """The folder of an export: `out`, or one beside the model's folder; in the current folder for a model of the hub.

    Args:
        model: folder or hub id.
        form: such as `onnx-int8`; ends the name of the folder.

    Raises:
        UserError: there is a file, or a folder that is not empty.
    """
    given = Path(os.path.abspath(at_home(model)))
    beside = given.parent if is_local(model) else Path()
    folder = beside / f"{given.name}-{form}" if out is None else Path(os.path.abspath(at_home(out)))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        what = "is a file" if folder.is_file() else "exists and is not empty"
        raise UserError(what, key=f"--out {folder}", cure="give another folder with --out")
    return folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` at the end, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            yield temporary
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=f"--out {folder}") from error


def copy_settings(source: PretrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write everything of a model but its weights into a folder: config.json, the tokenizer's files, and the rest.

    Subfolders, hidden files, and what an earlier export wrote are left out.

    Raises:
        OSError: it cannot be read or written.
    """
    place = at_home(source.path)
    if not place.is_dir():  # of the hub
        source.config().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    for file in sorted(place.iterdir()):
        weights = file.suffix in _WEIGHTS or file.name.endswith(".index.json")
        if file.is_file() and not weights and not file.name.startswith(".") and file.name != DETAILS_FILE:
            shutil.copyfile(file, folder / file.name)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
