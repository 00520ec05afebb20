"""A size-limited cache of files that can be recomputed, keyed by a hash of what they were computed from.

Beside each file lies its checksum, which is compared whenever the file is used: a damaged file is computed again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from hydraprune.errors import UserError
from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.digests import file_sha256
from hydraprune.utils.sizes import GB

# The subfolders and file names that belong to the cache; anything else in its folder is left alone, since a user may
# name any folder.
KINDS = ("answers", "tokens", "native")
_CACHE_FILE = re.compile(r"[0-9a-f]{32}\.(npy|safetensors|json)|[a-z_]+-[0-9a-f]{16}(-[0-9a-f]{16})?\.so")
_ATTEMPTS = 3
# Suffix of the file with a checksum, whose name begins with a dot.
_CHECKSUM = ".sha256"

log = logging.getLogger(__name__)
T = TypeVar("T")


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """The first 128 bits of `sha256_of`, for keys and checksums."""
    return sha256_of(parts)[:32]


def sha256_of(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 in hex of a sequence of byte strings; their boundaries count."""
    result = hashlib.sha256()
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        result.update(size.to_bytes(8, "little"))
        result.update(part)
    return result.hexdigest()


def cache_of(node: Mapping[str, Any] | None) -> Cache:
    """The cache that a config's `cache` node describes.

    Raises:
        UserError: `dir` is not a folder, or `max_gb` not a size.
    """
    if not isinstance(node, Mapping):
        raise UserError("must hold dir and max_gb", key="cache", value=node)
    folder, max_gb = node["dir"], node["max_gb"]
    if not isinstance(folder, str) or not folder.strip():
        raise UserError("must be a folder", key="cache.dir", value=folder)
    if isinstance(max_gb, bool) or not isinstance(max_gb, (int, float)) or not max_gb >= 0:
        raise UserError("must be a number of gigabytes, at least 0", key="cache.max_gb", value=max_gb)
    try:
        return Cache(Path(folder).expanduser(), float(max_gb))
    except RuntimeError:
        raise UserError("no such home folder", key="cache.dir", value=folder, cure="give another folder") from None


@dataclass(frozen=True)
class Cache:
    """At most `max_gb` of files below `folder`, each computed once.

    Args:
        max_gb: gigabytes (10^9 bytes); the least recently used files are removed to make room.
    """

    folder: Path
    max_gb: float

    def admits(self, size: int) -> bool:
        """Whether a file of `size` bytes may be stored at all."""
        return size <= self.max_gb * GB

    def fetch(self, kind: str, key: str, size: int, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        """`read(path)` of the file with this key; if there is none, `write(path)` computes it first.

        If two processes want the same file, the second waits for the first. A file whose checksum is
        not that of what was written, or that `read` refuses with a ValueError, is computed again.

        Args:
            kind: one of `KINDS`.
            size: bytes of the file, about.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self.folder / kind / key
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A lock of the operating system: it is released when its process dies.
            with _locked(path.with_name(f".{key}.lock"), path):
                for _ in range(_ATTEMPTS):
                    # Another process that needs room may remove the file at any moment.
                    with suppress(FileNotFoundError):
                        return self._read_or_write(path, size, write, read)
                return self._read_or_write(path, size, write, read)
        except OSError as error:
            raise UserError(
                f"cannot store {size / GB:.2g} GB there ({error.strerror or error})",
                key="cache.dir",
                value=self.folder,
                cure="make room, or give another folder",
            ) from None

    def _read_or_write(self, path: Path, size: int, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        if path.exists():
            try:
                found = read(path)
                _verify(path)
                os.utime(path)
                return found
            except ValueError as error:
                log.warning("Cannot read %s (%s): computing it again", path, error)
                _remove(path)
        self._make_room(size)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process: this one holds the lock
            leftover.unlink(missing_ok=True)
        with atomic_write(path) as temporary:
            write(temporary)
            # First, since a file without its checksum is not used: a kill in between costs a computation.
            with atomic_write(_checksum_file(path)) as checksum:
                checksum.write_text(file_sha256(temporary), encoding="ascii")
        return read(path)

    def files(self) -> list[Path]:
        """All files of the cache, least recently used first."""
        found = [file for kind in KINDS for file in (self.folder / kind).glob("*") if _CACHE_FILE.fullmatch(file.name)]
        return sorted(found, key=_last_used)

    def size(self) -> int:
        """Bytes of all files of the cache."""
        return sum(_size(file) for file in self.files())

    def clean(self) -> int:
        """Remove all files of the cache; returns the bytes freed. A job that has one open can read on."""
        freed = 0
        for file in [*self.files(), *self._leftovers()]:
            freed += _size(file)
            _remove(file)
        for lock in [file for kind in KINDS for file in (self.folder / kind).glob(".*.lock")]:
            if _CACHE_FILE.fullmatch(lock.name[1:].removesuffix(".lock")):
                with suppress(Timeout), FileLock(lock, timeout=0):
                    lock.unlink(missing_ok=True)
        return freed

    def _leftovers(self) -> list[Path]:
        """Temporary files of killed processes: no process holds the lock of their key."""
        found = []
        for file in [file for kind in KINDS for file in (self.folder / kind).glob(".*.tmp")]:
            key = file.name.rsplit(".", 2)[0].lstrip(".").removesuffix(_CHECKSUM)
            if not _CACHE_FILE.fullmatch(key):
                continue
            try:
                with FileLock(file.with_name(f".{key}.lock"), timeout=0):
                    found.append(file)
            except Timeout:
                pass
        return found

    def _make_room(self, size: int) -> None:
        if shutil.disk_usage(self.folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        spare = self.max_gb * GB - self.size() - size
        for file in self.files():
            if spare >= 0:
                return
            spare += _size(file)
            log.info("Cache: removing %s to make room (cache.max_gb=%g)", file, self.max_gb)
            _remove(file)


def _checksum_file(path: Path) -> Path:
    return path.with_name(f".{path.name}{_CHECKSUM}")


def _verify(path: Path) -> None:
    """Compare a file with its checksum.

    Raises:
        ValueError: it has none, or another one.
    """
    try:
        known = _checksum_file(path).read_text(encoding="ascii")
    except FileNotFoundError:
        raise ValueError("it has no checksum") from None
    if file_sha256(path) != known:
        raise ValueError("damaged: wrong checksum")


def _remove(path: Path) -> None:
    """Remove a file and its checksum."""
    path.unlink(missing_ok=True)
    _checksum_file(path).unlink(missing_ok=True)


@contextmanager
def _locked(lock: Path, path: Path) -> Iterator[None]:
    """Hold a lock; logs a line if another process holds it."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.info("Waiting for %s: another process is computing it", path)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _last_used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
