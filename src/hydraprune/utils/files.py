"""Can a folder be made and written? Light to import."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.utils.redaction import without_known

# How folders begin that are made to see whether one can be. Another process may see one, and a killed one leaves it.
PROBE = ".hydraprune-probe-"


def nearest(directory: Path) -> Path:
    """`directory`, or the part of its path that is there; its root where nothing is.

    Raises:
        OSError: the system refuses to look.
    """
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def check_place(directory: Path, key: str) -> None:
    """Refuse a folder that cannot be made or written.

    Raises:
        UserError: naming the part of the path that is no folder or does not let us write.
    """
    place = directory.absolute()
    try:
        place = nearest(directory)
        with tempfile.TemporaryDirectory(prefix=PROBE, dir=place):
            pass
    except OSError as error:
        shown = f"{str(place)[:80]}..." if len(str(place)) > 80 else place
        raise UserError(
            f"{key}: cannot write in {shown} ({os.strerror(error.errno or 0)}); give another folder"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, whatever is cut: the process or the power; and without known secrets."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(without_known(text))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def folders_with(name: str, folder: Path) -> list[Path]:
    """The folders below one (itself included) that hold a file of that name, sorted.

    Jobs may write there meanwhile: a folder that goes away under our hands is passed over.
    """
    found = []
    for place, inner, files in os.walk(folder):
        inner[:] = [below for below in inner if below not in _NO_RUNS]
        if name in files:
            found.append(Path(place))
    return sorted(found)


# Inside a run; no run is in there.
_NO_RUNS = ("model", "checkpoints", ".hydra")
