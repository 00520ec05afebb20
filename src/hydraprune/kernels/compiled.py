"""The kernels, compiled for this processor on first use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from hydraprune.sparsity import native_code

SOURCE = Path(__file__).with_name("encoder.c")
# Products and sums may be one instruction; square roots set no errno. Nothing that changes the processor's modes.
FLAGS = ("-march=native", "-ffp-contract=fast", "-fno-math-errno")
_INPUTS = (ctypes.c_void_p,) * 4
FUNCTIONS = {
    "hydraprune_encode": (*_INPUTS, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p),
    "hydraprune_linear": (*(ctypes.c_void_p,) * 3, ctypes.c_long, ctypes.c_int, ctypes.c_void_p),
}


@dataclass(frozen=True)
class Compiled:
    """The loaded kernels."""

    library: ctypes.CDLL


def compile_kernels(folder: Path) -> Compiled:
    """The kernels, compiled into `folder` unless they are there already for this kind of processor.

    Raises:
        OSError, AttributeError, SubprocessError: they cannot be compiled or loaded here.
    """
    return Compiled(native_code.build(SOURCE, folder, FUNCTIONS, FLAGS))
