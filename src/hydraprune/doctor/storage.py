"""Checks of the folders that a run writes: writable, enough room, working locks."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydraprune.doctor.result import Finding, State, merge, ok, warn
from hydraprune.errors import one_line
from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.files import PROBE, nearest
from hydraprune.utils.sizes import GB, format_bytes

# A run of BERT-base writes a model and a few checkpoints: some 3 GB.
_LITTLE_ROOM, _NO_ROOM = 5 * GB, GB // 5
# Files of a small sweep.
_FEW_FILES = 1000
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p", "afs", "glusterfs"}


def folder(key: str, place: Path, needed: bool = True) -> Finding:
    """Whether a run can write its files in a folder; the folder is not created.

    Args:
        key: the config key or variable that names the folder.
        needed: whether a run fails without the folder.
    """
    worst = State.BAD if needed else State.WARN
    try:
        there = nearest(place)
    except OSError as error:
        return Finding(worst, f"{place}: {error.strerror or one_line(error)}", f"give another folder: {key}=/path")
    if not there.is_dir():
        return Finding(worst, f"{place}: {there} is not a folder", f"give another folder: {key}=/path")
    found = str(place) if there == place.absolute() else f"{place} (not created yet)"
    writing, room = _writing(key, there, worst), _room(key, there, worst)
    if writing.state is not State.OK:  # one cure at a time
        room = ok(room.found)
    return merge([ok(found), writing, room, _kind(key, there)])


def _writing(key: str, there: Path, worst: State) -> Finding:
    """Write a file as a run does, and lock one as two runs do."""
    try:
        with _probe_folder(there) as inside:
            with atomic_write(inside / "file") as temporary:
                temporary.write_bytes(bytes(4096))
            return _locks(key, inside, worst)
    except OSError as error:
        why = f"cannot write ({error.strerror or one_line(error)})"
        return Finding(worst, why, f"make {there} writable, with room, or give another folder: {key}=/path")


@contextmanager
def _probe_folder(there: Path) -> Iterator[Path]:
    inside = tempfile.mkdtemp(prefix=PROBE, dir=there)
    try:
        yield Path(inside)
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _locks(key: str, inside: Path, worst: State) -> Finding:
    """Whether a lock can be held only once."""
    from filelock import FileLock, Timeout

    cure = f"mount it with locks (nfs: without nolock; lustre: with flock), or give a local folder: {key}=/path"
    if not _has_flock(inside):
        return warn("writes, but the file system has no locks, so a killed run keeps its lock", cure)
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
        return Finding(worst, f"writes, but cannot lock files ({error.strerror or error})", cure)
    return warn("writes, but two runs can hold one lock, so the same command run twice at once corrupts a run", cure)


def _has_flock(inside: Path) -> bool:
    """Whether the system has flock; without it filelock uses lock files, which outlive a killed process."""
    try:
        import fcntl
    except ImportError:  # Windows, which has other locks
        return True
    with (inside / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno != errno.ENOSYS
    return True


def _room(key: str, there: Path, worst: State) -> Finding:
    free = shutil.disk_usage(there).free
    found = f"{format_bytes(free)} free"
    files = os.statvfs(there)
    # f_files is 0 on file systems without a limit on files.
    if files.f_files and files.f_favail < _FEW_FILES:
        found += f" and room for {files.f_favail} files"
    elif free >= _LITTLE_ROOM:
        return ok(found)
    todo = f"make room, or give a folder on another disk: {key}=/path"
    return Finding(worst if free < _NO_ROOM or found.endswith(" 0 files") else State.WARN, found, todo)


def _kind(key: str, there: Path) -> Finding:
    kind = file_system(there.resolve())
    if kind in _IN_MEMORY:
        return warn(f"{kind}: in memory, lost at the next reboot", f"give a folder on a disk: {key}=/path")
    return ok(f"{kind}, locks tested from this machine only" if kind in _NETWORK else "")


def file_system(place: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system of a folder; empty if unknown (only Linux says)."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    # id, parent, device, root, mount point, options, tags, "-", type, source, options
    known = {}
    for words in (line.split() for line in lines):
        where = Path(words[4].encode().decode("unicode_escape"))
        if where == place or where in place.parents:
            known[where] = words[words.index("-") + 1]  # the last mount at one place hides the earlier ones
    return known[max(known, key=lambda where: len(where.parts))] if known else ""


def cache(place: Path, max_gb: float) -> Finding:
    """The cache's folder, its size and whether it can grow to its limit.

    Args:
        max_gb: the limit, in 10^9 bytes.
    """
    from hydraprune.utils.cache import Cache

    checked = folder("cache.dir", place, needed=max_gb > 0)
    try:
        size, free = Cache(place, max_gb).size(), shutil.disk_usage(nearest(place)).free
    except OSError:  # the finding of the folder says why
        return checked
    room = max_gb * GB - size
    if checked.state is State.OK and room > free:
        fits = max(0, int((size + free / 2) / GB))
        growth = warn(f"holds {format_bytes(size)} and may grow by {format_bytes(room)}", f"cache.max_gb={fits}")
        return merge([checked, growth])
    return merge([checked, ok(f"holds {format_bytes(size)} of at most {max_gb:g} GB")])
