"""The path of an experiment file, so that Hydra finds it, and the command that runs it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.utils.files import write_text

_GROUP = "experiment"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"


def experiment_path(out: str, name: str | None, origin: Path, taken: Collection[str]) -> Path:
    """The file that `--out` and `--name` mean.

    Args:
        out: a file .../experiment/NAME.yaml, or the folder for experiment/NAME.yaml.
        name: of the experiment; None: from the file that was read.
        origin: the file that was read.
        taken: names of existing experiments, which Hydra would find first.

    Raises:
        UserError: Hydra would not find the file there, or it exists.
    """
    path = Path(out)
    if path.suffix in (".yaml", ".yml"):
        if path.suffix != ".yaml" or path.absolute().parent.name != _GROUP:
            cure = f"give --out {_GROUP}/{path.stem}.yaml"
            raise UserError("Hydra would not find it there", key=f"--out {out}", cure=cure)
        if name not in (None, path.stem):
            raise UserError(f"--out {out} calls it {path.stem}", key=f"--name {name}", cure="give only one of them")
        name, option = path.stem, f"--out {out}"
    else:
        option = f"--out {out}" if name is None else f"--name {name}"
        name = experiment_name(origin) if name is None else name
        path = (path if path.absolute().name == _GROUP else path / _GROUP) / f"{name}.yaml"
    if not re.fullmatch(_NAME, name):
        reason = f"{name!r} cannot be typed after {_GROUP}="
        raise UserError(reason, key=option, cure="use letters, digits, _ and -")
    if name in taken:
        reason = f"{_GROUP}={name} exists already, and would be found first"
        raise UserError(reason, key=option, cure="give another --name")
    if path.exists():
        raise UserError(f"{path} exists", key=option, cure="remove it, or give another name")
    return path


def experiment_name(origin: Path) -> str:
    """A name for the experiment from the name of a file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", origin.stem).strip("_-") or "converted"


def save(text: str, path: Path) -> None:
    """Write the file atomically, with its folders.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=f"--out {path}") from None


def train_command(path: Path) -> str:
    """The command that runs the experiment in a file."""
    return f"python train.py --config-dir {shlex.quote(str(path.parent.parent))} {_GROUP}={path.stem}"
