"""Why did a load fail? Hugging Face's many exceptions, as one line with a cure."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hydraprune.errors import UserError
from hydraprune.utils.redaction import redacted


def at_home(path: str) -> Path:
    """`path` with ~ as the home that it stands for; ~nobody stays as it is, and is not there."""
    return Path(os.path.expanduser(path))


def is_local(path: str) -> bool:
    """Whether `path` is written as a local path: it exists, if only as a broken link, or can be nothing else."""
    return path.startswith(("/", ".", "~")) or exists(at_home(path)) or os.path.islink(path)


def exists(path: Path) -> bool:
    """`path.exists()`, and False where the system refuses to look: a name too long, a closed folder."""
    try:
        return path.exists()
    except OSError:
        return False


def local_or_id(path: str, key: str) -> str:
    """`path` with ~ expanded if local; a hub id as it is.

    Raises:
        UserError: it is written as a local path and nothing is there.
    """
    if not is_local(path):
        return path
    expanded = at_home(path)
    if os.path.islink(expanded) and not exists(expanded):
        raise UserError(f"{key}={path}: is a link to {os.readlink(expanded)}, where nothing is; mend the link")
    if not exists(expanded):
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
        # What the libraries advise then is to run it.
        for sign, why in _CODE:
            if sign in reason:
                raise UserError(f"{key}={path}: {why}") from error
        if is_local(path):
            if getattr(error.__cause__ or error, "errno", None) == errno.ENOSPC:
                raise UserError(
                    f"{key}={path}: the disk is full on which it is unpacked; make room, or set the environment "
                    f"variable TMPDIR to a folder on another disk"
                ) from error
            raise UserError(f"{key}={path}: cannot be loaded: {_short(reason_of(error))}") from error
        if is_offline() or isinstance(error, OSError):
            why = (
                "cannot be reached, or HF_HUB_OFFLINE is set"
                if is_offline()
                else "cannot be reached, or has no such id"
            )
            raise UserError(
                f"{key}={path}: not in the local cache, and the hub {why}; check the id and the network, or give a "
                f"local folder: {key}=/path/to/folder"
            ) from error
        raise UserError(f"{key}={path}: cannot be loaded: {_short(reason)}") from error


def reason_of(error: BaseException) -> str:
    """What a library said was wrong, in one line: its own words where it wrapped another's."""
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ is not None else ""
    return cause or " ".join(str(error).split())


def is_offline() -> bool:
    """Whether the environment says not to try the hub."""
    return any(os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in _OFFLINE)


def go_offline_if_unreachable(paths: Iterable[str], timeout: float = 5.0) -> None:
    """Say HF_HUB_OFFLINE for this process when one of `paths` is a hub id and the hub does not answer.

    The libraries would retry each file for half a minute. To be called before they are imported,
    for they read the variable then. Nothing is tried behind a proxy, which only they know how to use.
    """
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if is_offline() or proxied or all(map(is_local, paths)):
        return
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        address = (endpoint.hostname or "", endpoint.port or (80 if endpoint.scheme == "http" else 443))
        socket.create_connection(address, timeout=timeout).close()
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


_CODE = (
    (
        "Weights only load failed",
        "its weights are a pickle that holds more than weights, and is not run; save it again as model.safetensors",
    ),
    ("trust_remote_code", "needs code that comes with it, which is not run; give one of a kind that transformers has"),
)

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def _short(reason: str, length: int = 200) -> str:
    reason = str(redacted(reason))  # before it is cut: a part of a secret would not be known
    return reason if len(reason) <= length else reason[: length - 3] + "..."


def quiet_libraries() -> None:
    """Loading bars and notes of the libraries, which would cut our own in pieces."""
    import datasets
    import huggingface_hub
    import transformers

    huggingface_hub.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # Not even its errors: what goes wrong in a file is said once, by us.
    datasets.logging.set_verbosity(logging.CRITICAL)
