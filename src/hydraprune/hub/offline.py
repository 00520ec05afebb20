"""Why did a load fail? Hugging Face's many exceptions, as one line with a cure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydraprune.errors import UserError


def is_local(path: str) -> bool:
    """Whether `path` is written as a local path: it exists, or can be nothing else."""
    return Path(path).expanduser().exists() or path.startswith(("/", ".", "~"))


def local_or_id(path: str, key: str) -> str:
    """`path` with ~ expanded if local; a hub id as it is.

    Raises:
        UserError: it is written as a local path and nothing is there.
    """
    if not is_local(path):
        return path
    expanded = Path(path).expanduser()
    if not expanded.exists():
        raise UserError(f"{key}={path}: no such file or folder; give a folder that exists, or a hub id")
    return str(expanded)


@contextmanager
def loading(key: str, path: str) -> Iterator[None]:
    """Turn what goes wrong while `path` is loaded into one UserError that names `key`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries raise dozens of kinds for a broken file
        reason = " ".join(str(error).split())
        if is_local(path):
            cause = " ".join(str(error.__cause__).split()) if error.__cause__ is not None else ""
            raise UserError(f"{key}={path}: cannot be loaded: {_short(cause or reason)}") from error
        offline = any(os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in _OFFLINE)
        if offline or isinstance(error, (OSError, ConnectionError)):
            why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached, or has no such id"
            raise UserError(
                f"{key}={path}: not in the local cache, and {why}; check the id and the network, or give a local "
                f"folder: {key}=/path/to/folder"
            ) from error
        raise UserError(f"{key}={path}: cannot be loaded: {_short(reason)}") from error


_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def _short(reason: str, length: int = 200) -> str:
    return reason if len(reason) <= length else reason[: length - 3] + "..."
