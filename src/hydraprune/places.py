"""Can a folder be made and written? Light to import."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hydraprune.errors import UserError

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
