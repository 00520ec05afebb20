"""Where does an experiment file go so that Hydra finds it, and what is typed then?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.utils.files import write_text

_GROUP = "experiment"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"


def place(out: str, name: str | None, origin: Path, taken: Collection[str]) -> Path:
    """The file that `--out` and `--name` mean.

    Args:
        out: a file .../experiment/NAME.yaml, or the folder that gets experiment/NAME.yaml.
        name: the word that is typed then; what was read gives it if not said.
        taken: words that are experiments already, and would win.

    Raises:
        UserError: Hydra would not find it there, or it exists.
    """
    path = Path(out)
    if path.suffix in (".yaml", ".yml"):
        if path.suffix != ".yaml" or path.absolute().parent.name != _GROUP:
            raise UserError(f"--out {out}: Hydra would not find it there; say --out {_GROUP}/{path.stem}.yaml")
        if name not in (None, path.stem):
            raise UserError(f"--name {name}: --out {out} calls it {path.stem}; say one of them")
        name, said = path.stem, f"--out {out}"
    else:
        said = f"--out {out}" if name is None else f"--name {name}"
        name = word(origin) if name is None else name
        path = (path if path.absolute().name == _GROUP else path / _GROUP) / f"{name}.yaml"
    if not re.fullmatch(_NAME, name):
        raise UserError(f"{said}: {name!r} cannot be typed after {_GROUP}=; use letters, digits, _ and -")
    if name in taken:
        raise UserError(f"{said}: {_GROUP}={name} is there already, and would be found first; give --name another")
    if path.exists():
        raise UserError(f"{said}: {path} exists; remove it, or give another name")
    return path


def word(origin: Path) -> str:
    """The name of a file as a word that can be typed."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", origin.stem).strip("_-") or "converted"


def save(text: str, path: Path) -> None:
    """Write the file whole or not at all, and its folders.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror or error})") from None


def command(path: Path) -> str:
    """What is typed to run the experiment in a file."""
    return f"python train.py --config-dir {shlex.quote(str(path.parent.parent))} {_GROUP}={path.stem}"
