"""Atomic writes: a file or folder that is there whole or not at all, and survives a power cut."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, to be written as a file or a folder, then rename it to `path`.

    What was written is synced to the disk before the rename, and the rename itself after it. If the
    block raises, `path` stays as it was and the temporary path is removed. A killed process leaves
    `.<name>.<pid>.tmp`. An existing folder at `path` is replaced; a link is replaced, not followed.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        for file in [temporary] if temporary.is_file() else [f for f in temporary.rglob("*") if f.is_file()]:
            sync(file)
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _remove(path: Path) -> None:
    """Remove a folder, or a link but not what it points to."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def sync(file: Path) -> int:
    """Have the contents of a file on the disk; returns its size in bytes."""
    with file.open("rb+") as opened:  # Windows syncs only files that are open for writing
        os.fsync(opened.fileno())
        return os.fstat(opened.fileno()).st_size


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; some systems do not let a folder be opened."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
