"""The folders that a run writes: there, writable, with room, and with locks that work."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydraprune.doctor.result import Finding, State, ok, together, warn
from hydraprune.errors import one_line
from hydraprune.utils.files import PROBE, nearest

_GB = 1_000_000_000
# A run of BERT-base keeps a model and a few checkpoints: some 3 GB.
_LITTLE, _NOTHING = 5 * _GB, _GB // 5
# Files that a small sweep makes.
_FEW_FILES = 1000
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p", "afs", "glusterfs"}


def folder(key: str, place: Path, needed: bool = True) -> Finding:
    """Whether a run can keep its files in a folder, which is not made.

    Args:
        key: of the config, or a variable: what to give another value.
        needed: whether no run works without.
    """
    worst = State.BAD if needed else State.WARN
    try:
        there = nearest(place)
    except OSError as error:
        return Finding(worst, f"{place}: {error.strerror or one_line(error)}", f"give another folder: {key}=/path")
    if not there.is_dir():
        return Finding(worst, f"{place}: {there} is no folder", f"give another folder: {key}=/path")
    found = str(place) if there == place.absolute() else f"{place} (not there yet)"
    tried, room = _tried(key, there, worst), _room(key, there, worst)
    if tried.state is not State.OK:  # one thing to do at a time
        room = ok(room.found)
    return together([ok(found), tried, room, _kind(key, there)])


def _tried(key: str, there: Path, worst: State) -> Finding:
    """Write as a run does, and lock as two runs do."""
    try:
        with _own(there) as inside:
            _write(inside)
            return _locks(key, inside, worst)
    except OSError as error:
        why = f"cannot write ({error.strerror or one_line(error)})"
        return Finding(worst, why, f"make {there} writable, with room, or give another folder: {key}=/path")


@contextmanager
def _own(there: Path) -> Iterator[Path]:
    inside = tempfile.mkdtemp(prefix=PROBE, dir=there)
    try:
        yield Path(inside)
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _write(inside: Path) -> None:
    with (inside / "tmp").open("wb") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
    os.replace(inside / "tmp", inside / "file")


def _locks(key: str, inside: Path, worst: State) -> Finding:
    """Whether a lock that is held keeps another holder out."""
    from filelock import FileLock, Timeout

    where = f"mount it with locks (nfs: without nolock; lustre: with flock), or give a local folder: {key}=/path"
    if not _has_flock(inside):
        return warn("writes, but the file system has no locks, so a killed run may keep its own", where)
    first, second = FileLock(inside / ".lock"), FileLock(inside / ".lock")
    try:
        first.acquire(timeout=0)
        try:
            second.acquire(timeout=0)
        except Timeout:
            return ok("writes, locks")
        finally:
            second.release()
            first.release()
    except OSError as error:
        return Finding(worst, f"writes, but cannot lock files ({error.strerror or error})", where)
    return warn("writes, but two runs can hold one lock, so the same command twice at once spoils a run", where)


def _has_flock(inside: Path) -> bool:
    """Where the system says that it knows no such call, filelock makes do with files that outlive their holder."""
    try:
        import fcntl
    except ImportError:  # another kind of system, with another kind of lock
        return True
    with (inside / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno != errno.ENOSYS
    return True


def _room(key: str, there: Path, worst: State) -> Finding:
    free = shutil.disk_usage(there).free
    found = f"{free / _GB:.1f} GB free"
    files = os.statvfs(there)
    # Some file systems count no files: they have no end of them.
    if files.f_files and files.f_favail < _FEW_FILES:
        found += f" and room for {files.f_favail} files"
    elif free >= _LITTLE:
        return ok(found)
    todo = f"make room, or give a folder on another disk: {key}=/path"
    return Finding(worst if free < _NOTHING or found.endswith(" 0 files") else State.WARN, found, todo)


def _kind(key: str, there: Path) -> Finding:
    kind = file_system(there.resolve())
    if kind in _IN_MEMORY:
        return warn(f"{kind}: in memory, gone with the next start", f"give a folder on a disk: {key}=/path")
    return ok(f"{kind}, locks tried from this machine only" if kind in _NETWORK else "")


def file_system(place: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """What kind of file system a folder is on; empty where the system does not tell (only Linux does)."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    # id, parent, device, root, where, options, any number of tags, "-", kind, source, options
    known = {}
    for words in (line.split() for line in lines):
        where = Path(words[4].encode().decode("unicode_escape"))
        if where == place or where in place.parents:
            known[where] = words[words.index("-") + 1]  # the last mount on one place hides those before
    return known[max(known, key=lambda where: len(where.parts))] if known else ""


def cached(cache: Path, max_gb: float) -> Finding:
    """The cache's folder, and how much of what it may take is there."""
    from hydraprune.utils.cache import Cache

    place = folder("cache.dir", cache, needed=max_gb > 0)
    try:
        size, free = Cache(cache, max_gb).size(), shutil.disk_usage(nearest(cache)).free
    except OSError:  # said by the folder's line
        return place
    told = ok(f"keeps {size / _GB:.1f} of at most {max_gb:g} GB")
    grows = max_gb * _GB - size
    if place.state is State.OK and grows > free:
        fits = max(0, int((size + free / 2) / _GB))
        told = warn(f"keeps {size / _GB:.1f} GB and may grow by {grows / _GB:.1f}", f"cache.max_gb={fits}")
    return together([place, told])
