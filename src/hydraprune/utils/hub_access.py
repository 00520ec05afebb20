"""Access to the Hugging Face hub, or local paths in its place: one-line load errors, offline mode."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hydraprune.errors import UserError, single_line
from hydraprune.utils.files import read_bytes
from hydraprune.utils.redaction import redacted

# (part of a library's message, reason, cure), where the library advises to run code that comes with the checkpoint.
_REMOTE_CODE = (
    (
        "Weights only load failed",
        "its weights are a pickle that holds more than weights, which is never run",
        "save it again as model.safetensors",
    ),
    (
        "trust_remote_code",
        "needs code that comes with it, which is never run",
        "give a model or data set that the libraries support by themselves",
    ),
)
_WEIGHTS_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# Files of a model that hold one JSON object each, and most bytes of one that is looked into.
_MODEL_OBJECTS = ("config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
_LARGEST_JSON = 1 << 27
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
# Of a library's message in an error.
_MOST_CHARACTERS = 200
# Time limit in seconds for a connection to the hub.
_CONNECT_SECONDS = 5.0
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def at_home(path: str) -> Path:
    """`path` with ~ expanded; the ~name of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


def is_local(path: str) -> bool:
    """Whether `path` means a local path: it exists, if only as a broken link, or cannot be a hub id."""
    return path.startswith(("/", ".", "~")) or exists(at_home(path)) or os.path.islink(path)


def exists(path: Path) -> bool:
    """`path.exists()`, but False where the system refuses to look: a name too long, a folder without access."""
    try:
        return path.exists()
    except OSError:
        return False


def local_or_id(path: str, key: str) -> str:
    """A local path with ~ expanded; a hub id as it is.

    Args:
        key: the config key of `path`, for errors.

    Raises:
        UserError: a local path that does not exist.
    """
    if not is_local(path):
        return path
    expanded = at_home(path)
    if os.path.islink(expanded) and not exists(expanded):
        reason = f"is a link to {os.readlink(expanded)}, which does not exist"
        raise UserError(reason, key=key, value=path, cure="repair the link")
    if not exists(expanded):
        raise UserError("no such file or folder", key=key, value=path, cure="give a folder that exists, or a hub id")
    if expanded.is_file() and (expanded.suffix in _WEIGHTS_ENDINGS or expanded.name == "config.json"):
        raise UserError("is a file of a model", key=key, value=path, cure=f"give its folder: {key}={expanded.parent}")
    if model_of_run(expanded) is not None:
        raise UserError("is the folder of a run", key=key, value=path, cure=f"give its model: {key}={expanded}/model")
    return str(expanded)


def model_of_run(folder: Path) -> Path | None:
    """The model in the folder of a run; None for any other folder."""
    model = folder / "model"
    is_run = exists(folder / "report.json") and exists(model / "config.json") and not exists(folder / "config.json")
    return model if is_run else None


@contextmanager
def loading(key: str, path: str, part: str | None = None) -> Iterator[None]:
    """Turn any error while `path` is loaded into a one-line UserError.

    Args:
        key: the config key of `path`.
        part: what of it is loaded, for the error; None: all.
    """
    try:
        yield
    except UserError as error:
        if error.key is not None:
            raise
        raise UserError(error.reason, key=key, value=path, cure=error.cure) from None
    except Exception as error:  # the libraries raise dozens of classes for a broken file
        raise _load_error(error, key, path, part) from error


def _load_error(error: Exception, key: str, path: str, part: str | None) -> UserError:
    message = single_line(error)
    for words, reason, cure in _REMOTE_CODE:
        if words in message:
            return UserError(reason, key=key, value=path, cure=cure)
    if is_local(path):
        if getattr(error.__cause__ or error, "errno", None) == errno.ENOSPC:
            return UserError(
                "the disk on which it is unpacked is full",
                key=key,
                value=path,
                cure="make room, or set the environment variable TMPDIR to a folder on another disk",
            )
        reason = _broken_json(at_home(path)) or f"{f'{part}: ' if part else ''}{_shortened(reason_of(error))}"
        return UserError(f"cannot be loaded: {reason}", key=key, value=path)
    if is_offline() or isinstance(error, OSError):
        why = "is unreachable, or HF_HUB_OFFLINE is set" if is_offline() else "is unreachable, or has no such id"
        return UserError(
            f"not in the local cache, and the hub {why}",
            key=key,
            value=path,
            cure=f"check the id and the network, or give a local folder: {key}=/path/to/folder",
        )
    return UserError(f"cannot be loaded: {f'{part}: ' if part else ''}{_shortened(message)}", key=key, value=path)


def _broken_json(folder: Path) -> str | None:
    """Which JSON file of a folder is empty, or is one of a model and holds no JSON object; None if none is."""
    files = [file for file in sorted(folder.glob("*.json")) if file.is_file()]
    if empty := [file.name for file in files if not file.stat().st_size]:
        return f"{empty[0]} in it is empty"
    for file in files:
        if file.name in _MODEL_OBJECTS:
            try:
                content = json.loads(read_bytes(file, _LARGEST_JSON))
            except (OSError, ValueError, RecursionError) as error:
                return f"{file.name} in it is no JSON file ({_shortened(single_line(error))})"
            if not isinstance(content, dict):
                kind = "a list" if isinstance(content, list) else json.dumps(content)
                return f"{file.name} in it holds {kind:.40}, and an object is needed"
    return None


def reason_of(error: BaseException) -> str:
    """A library's message in one line; that of the error it wrapped, if any."""
    cause = single_line(error.__cause__) if error.__cause__ is not None else ""
    return cause or single_line(error)


def is_offline() -> bool:
    """Whether the environment forbids access to the hub."""
    return any(os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in _OFFLINE_VARIABLES)


def go_offline_if_unreachable(paths: Iterable[str]) -> None:
    """Set HF_HUB_OFFLINE for this process if one of `paths` is a hub id and the hub does not answer.

    The libraries would retry each file for half a minute. Call this before they are imported: they
    read the variable at import. Behind a proxy nothing is tried, since only they know how to use it.

    Raises:
        UserError: HF_ENDPOINT is no address.
    """
    if is_offline() or any(map(os.environ.get, _PROXY_VARIABLES)) or all(map(is_local, paths)):
        return
    named = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        endpoint = urlsplit(named)
        address = (endpoint.hostname or "", endpoint.port or (80 if endpoint.scheme == "http" else 443))
        socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except ValueError as error:
        reason = f"is no address ({single_line(error)})"
        raise UserError(
            reason, key="HF_ENDPOINT", value=named, cure="unset it, or as in https://huggingface.co"
        ) from None
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _shortened(message: str) -> str:
    message = str(redacted(message))  # before it is cut, or part of a secret would remain
    return message if len(message) <= _MOST_CHARACTERS else message[: _MOST_CHARACTERS - 3] + "..."


def quiet_libraries() -> None:
    """Turn off progress bars and log messages of the Hugging Face libraries."""
    import datasets
    import huggingface_hub
    import transformers

    huggingface_hub.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # Not even its errors: a broken file ends in one UserError.
    datasets.logging.set_verbosity(logging.CRITICAL)
