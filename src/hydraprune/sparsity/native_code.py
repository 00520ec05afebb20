"""Compiling and loading C code, where there is a compiler. Every caller has a path without it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
# No contraction and no fast math: the compiled and the PyTorch path must give the same bits.
_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
_SECONDS = 60
# What `build` raises.
UNFIT = (OSError, AttributeError, subprocess.SubprocessError)


def compiler() -> str | None:
    """The C compiler that would be used; None if there is none."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def load(source: Path, folder: Path, functions: Mapping[str, Sequence[Any]]) -> ctypes.CDLL | None:
    """`build`, or None where that fails."""
    try:
        return build(source, folder, functions)
    except UNFIT:
        return None


def build(
    source: Path,
    folder: Path,
    functions: Mapping[str, Sequence[Any]],
    flags: Sequence[str] = ("-march=native",),
    seconds: float = _SECONDS,
) -> ctypes.CDLL:
    """`source` as a loaded library, compiled into `folder` unless it is there already for this kind of processor.

    The headers beside it belong to it.

    The name of a library holds the checksum of its bytes: one that is damaged, or half written, is never loaded but
    compiled again, since loading it could end the process.

    Args:
        functions: name -> ctypes of its arguments; all of them return nothing.
        seconds: for one call of the compiler.

    Raises:
        OSError, AttributeError, SubprocessError: it cannot be compiled or loaded here, or others may write in `folder`.
    """
    command = compiler()
    if command is None:
        raise OSError("no C compiler on PATH")
    if platform.system() not in ("Linux", "Darwin"):
        raise OSError(f"nothing is compiled on {platform.system()}")
    text = "\n".join(path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h"))))
    # A home folder may be shared by machines whose processors differ.
    key = hashlib.sha256("\n".join([text, *flags, *_FLAGS, command, processor()]).encode()).hexdigest()[:16]
    stem = f"{source.stem}-{key}"
    for path in sorted(folder.glob(f"{stem}-*.so")):
        _check_private(path)
        if path.name == _library_name(stem, path):
            with suppress(*UNFIT):
                return _loaded(path, functions)
        log.warning("%s is damaged: compiling it again", path)
        with suppress(OSError):
            path.unlink(missing_ok=True)
    path = _compile(command, source, folder / stem, flags, seconds)
    _check_private(path)
    return _loaded(path, functions)


def _library_name(stem: str, path: Path) -> str:
    """The name of a library with the bytes of the file at `path`."""
    return f"{stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def _check_private(path: Path) -> None:
    if not (private(path.parent) and private(path)):
        raise PermissionError(f"others may write in {path.parent}")


def private(path: Path) -> bool:
    """Whether only this user can have written there; a loaded library is code that runs."""
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _loaded(path: Path, functions: Mapping[str, Sequence[Any]]) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    for name, arguments in functions.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = list(arguments), None
    return loaded


def _compile(command: str, source: Path, path: Path, flags: Sequence[str], seconds: float) -> Path:
    """Compile `source` to a file beside `path`, the name of which it begins with; returns it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.so.{os.getpid()}.tmp")
    try:
        # With OpenMP it shares torch's threads; compilers without OpenMP (Apple's) give one thread.
        for parallel in (("-fopenmp",), ()):
            line = [command, *_FLAGS, *flags, *parallel, str(source), "-o", str(temporary), "-lm"]
            done = subprocess.run(line, capture_output=True, timeout=seconds, check=False)
            if done.returncode == 0:
                temporary.chmod(0o700)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                made = path.with_name(_library_name(path.name, temporary))
                os.replace(temporary, made)
                return made
        output = done.stderr.decode(errors="replace").splitlines()
        raise OSError(f"{command}: {next((line for line in output if 'error' in line), 'failed without a message')}")
    finally:
        temporary.unlink(missing_ok=True)


def processor() -> str:
    """The kind of this processor: everything that decides how code compiled for it computes."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join(sorted(set(kept)))
