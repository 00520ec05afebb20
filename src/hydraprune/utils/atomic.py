"""Atomic writes: a file or folder that is there whole or not at all, and survives a power cut."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, to be written as a file or a folder, then rename it to `path`.

    What was written is synced to the disk before the rename, and the rename itself after it. If the
    block raises, `path` stays as it was and the temporary path is removed. A killed process leaves
    `.<name>.<pid>.tmp`. An existing folder at `path` is replaced; a link is replaced, not followed.

    Raises:
        OSError: it cannot be written; or a device or pipe is there, which would be replaced by a file.
    """
    if not path.name:
        raise OSError(errno.EISDIR, "is a folder", str(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "is a device or a pipe", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        for file in [temporary] if temporary.is_file() else [f for f in temporary.rglob("*") if f.is_file()]:
            sync(file)
        if temporary.is_dir():
            _remove(path)
        elif path.is_dir() and not path.is_symlink():
            raise OSError(errno.EISDIR, "is a folder", str(path))
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove_leftovers(folder: Path, names: Collection[str], live: bool = False) -> None:
    """Remove what killed processes left of `atomic_write` in a folder.

    Args:
        folder: one that only the holder of its lock writes; see `live` for others.
        names: the files and folders that are written there.
        live: whether other processes may be writing there: then only what has not changed for a minute, and whose
            process is gone, is removed.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            match = _TEMPORARY.fullmatch(path.name)
            if match is None or match["name"] not in names or (live and _may_be_written(path, int(match["pid"]))):
                continue
            with suppress(OSError):
                _remove(path)


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d{1,10})\.tmp")
_UNCHANGED_SECONDS = 60.0


def _may_be_written(path: Path, pid: int) -> bool:
    """Whether a process of this machine, or of another one that shares the disk, may be writing this."""
    import psutil  # here: doctor imports this module where packages are missing

    return psutil.pid_exists(pid) or time.time() - path.lstat().st_mtime < _UNCHANGED_SECONDS


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
