"""Files and folders: what can be written and read, atomic text files, and a search for folders of runs."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.redaction import redact_known

# Prefix of the folders that are made only to test whether one can be. Other processes may see them, and a killed
# process leaves one behind.
PROBE = ".hydraprune-probe-"
# Folders inside a run, which contain no runs.
_INSIDE_A_RUN = ("model", "checkpoints", ".hydra")


def nearest(directory: Path) -> Path:
    """The longest part of the path of `directory` that exists; its root if none does.

    Raises:
        OSError: the system refuses to look.
    """
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def check_place(directory: Path, key: str) -> None:
    """Check that a folder can be made and written.

    Args:
        key: the config key that names it.

    Raises:
        UserError: naming the part of the path that is not a folder or not writable.
    """
    place = directory.absolute()
    try:
        place = nearest(directory)
        with tempfile.TemporaryDirectory(prefix=PROBE, dir=place):
            pass
    except OSError as error:
        shown = f"{str(place)[:80]}..." if len(str(place)) > 80 else place
        reason = f"cannot write in {shown} ({os.strerror(error.errno or 0)})"
        raise UserError(reason, key=key, cure="give another folder") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, without known secrets; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(redact_known(text), encoding="utf-8")


def read_bytes(path: Path, most: int, end: bool = False) -> bytes:
    """The contents of a regular file.

    A pipe or a device of that name is refused: reading it may never end.

    Args:
        most: bytes that it may have.
        end: of a longer file, read the last `most` bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer than `most`.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with open(path, "rb", opener=_open_at_once) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most and not end:
            raise OSError(errno.EFBIG, f"has {size} bytes, and at most {most} are read", str(path))
        file.seek(max(0, size - most))
        return file.read(most)


def _open_at_once(path: str, flags: int) -> int:
    # If a pipe takes the file's place now, opening it does not wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def folders_with(name: str, folder: Path) -> list[Path]:
    """The folders below `folder`, itself included, that hold a file called `name`; sorted.

    Jobs may be running there: a folder that disappears meanwhile is skipped.
    """
    found = []
    for place, inner, files in os.walk(folder):
        inner[:] = [below for below in inner if below not in _INSIDE_A_RUN]
        if name in files:
            found.append(Path(place))
    return sorted(found)
