"""SHA-256 of files; a file that did not change since is not read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

# Bytes of a file that are read at a time.
_BLOCK = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    status = os.stat(path)
    return _digest(str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def folder_digest(files: Iterable[Path], folder: Path) -> str:
    """SHA-256 of some files below a folder: of their names and contents, whatever their order.

    Raises:
        OSError: one of them cannot be read.
    """
    lines = sorted(f"{file.relative_to(folder).as_posix()}\0{file_digest(file)}" for file in files)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights in a model's folder.

    Raises:
        OSError: they cannot be read.
    """
    return folder_digest(folder.glob("*.safetensors"), folder)


@lru_cache(maxsize=4096)
def _digest(path: str, *_state: int) -> str:
    """The digest of a file in one state: an entry is found again only while inode, size and times are the same."""
    return file_sha256(Path(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            result.update(block)
    return result.hexdigest()
