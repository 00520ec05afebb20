"""Files that can be made again: a folder of them, by the hash of what they were made from."""

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

# What is in the folder, and what its files are called. Nothing else in it is ever touched, whatever
# folder a user names.
KINDS = ("answers", "tokens", "native")
_OURS = re.compile(r"[0-9a-f]{32}\.(npy|safetensors)|[a-z]+-[0-9a-f]{16}\.so")
_GB = 1_000_000_000
_TRIES = 3

log = logging.getLogger(__name__)
T = TypeVar("T")


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """A content hash of byte strings, in order; where one ends and the next begins counts."""
    result = hashlib.sha256()
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        result.update(size.to_bytes(8, "little"))
        result.update(part)
    return result.hexdigest()[:32]


def cache_of(node: Mapping[str, Any] | None) -> Cache:
    """The cache of a config's `cache` node.

    Raises:
        UserError: a value that is no folder or no size.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"cache={_shown(node)}: must hold dir and max_gb")
    folder, most = node["dir"], node["max_gb"]
    if not isinstance(folder, str) or not folder.strip():
        raise UserError(f"cache.dir={_shown(folder)}: must be a folder")
    if isinstance(most, bool) or not isinstance(most, (int, float)) or not most >= 0:
        raise UserError(f"cache.max_gb={_shown(most)}: must be a number of gigabytes, at least 0")
    try:
        return Cache(Path(folder).expanduser(), float(most))
    except RuntimeError:
        raise UserError(f"cache.dir={folder}: there is no such home folder; give another") from None


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


@dataclass(frozen=True)
class Cache:
    """At most `max_gb` of files below `folder`, each made once, whoever asks first.

    Args:
        max_gb: gigabytes (10^9 bytes); what was used least recently makes room for what is new.
    """

    folder: Path
    max_gb: float

    def admits(self, size: int) -> bool:
        """Whether a file of `size` bytes may be kept here at all."""
        return size <= self.max_gb * _GB

    def fetch(self, kind: str, key: str, size: int, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        """What `read` makes of the file of that key, which `write` makes if it is not there.

        Two processes that want one file at once: the second waits for the first. A file that cannot
        be read is made anew.

        Raises:
            UserError: the folder cannot be written.
        """
        place = self.folder / kind / key
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Kept by the system, not by a file's existence: a lock dies with its holder.
            with _held(place.with_name(f".{key}.lock"), place):
                for _ in range(_TRIES):
                    # Another process that needs room may remove the file at any moment.
                    with suppress(FileNotFoundError):
                        return self._found(place, size, write, read)
                return self._found(place, size, write, read)
        except OSError as error:
            raise UserError(
                f"cache.dir={self.folder}: cannot keep {size / _GB:.2g} GB there ({error.strerror or error}); "
                f"make room, or give another folder"
            ) from None

    def _found(self, place: Path, size: int, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        if place.exists():
            try:
                found = read(place)
                os.utime(place)
                return found
            except ValueError as error:
                log.warning("%s cannot be read (%s): making it anew", place, error)
                place.unlink(missing_ok=True)
        self._make_room(size)
        _write(place, write)
        return read(place)

    def files(self) -> list[Path]:
        """All files here, those used least recently first."""
        found = [file for kind in KINDS for file in (self.folder / kind).glob("*") if _OURS.fullmatch(file.name)]
        return sorted(found, key=_last_used)

    def size(self) -> int:
        """Bytes of all files here."""
        return sum(_size(file) for file in self.files())

    def clean(self) -> int:
        """Remove all files here; returns how many bytes that were. Jobs that read one keep what they have."""
        freed = 0
        for file in [*self.files(), *self._abandoned()]:
            freed += _size(file)
            file.unlink(missing_ok=True)
        for lock in [file for kind in KINDS for file in (self.folder / kind).glob(".*.lock")]:
            if _OURS.fullmatch(lock.name[1:].removesuffix(".lock")):
                with suppress(Timeout), FileLock(lock, timeout=0):
                    lock.unlink(missing_ok=True)
        return freed

    def _abandoned(self) -> list[Path]:
        """What killed writers left: nobody holds the lock."""
        left = []
        for file in [file for kind in KINDS for file in (self.folder / kind).glob(".*.tmp")]:
            key = file.name[1:].rsplit(".", 2)[0]
            if not _OURS.fullmatch(key):
                continue
            try:
                with FileLock(file.with_name(f".{key}.lock"), timeout=0):
                    left.append(file)
            except Timeout:
                pass
        return left

    def _make_room(self, size: int) -> None:
        if shutil.disk_usage(self.folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        spare = self.max_gb * _GB - self.size() - size
        for file in self.files():
            if spare >= 0:
                return
            spare += _size(file)
            log.info("Cache: %s makes room (cache.max_gb=%g)", file, self.max_gb)
            file.unlink(missing_ok=True)


@contextmanager
def _held(lock: Path, place: Path) -> Iterator[None]:
    """A lock, with a word when another process has it."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.info("Another process is making %s: waiting for it", place)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _write(place: Path, write: Callable[[Path], None]) -> None:
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    for left in place.parent.glob(f".{place.name}.*.tmp"):  # of a killed writer: we hold the lock
        left.unlink(missing_ok=True)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


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
