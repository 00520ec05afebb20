"""The kernels, compiled for this processor on first use."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydraprune.sparsity import native_code

SOURCE = Path(__file__).with_name("encoder.c")
# Products and sums may be one instruction; square roots set no errno. Nothing that changes the processor's modes.
NATIVE = ("-march=native",)
_FLAGS = ("-ffp-contract=fast", "-fno-math-errno")
_POINTER = ctypes.c_void_p
_ENCODE = (_POINTER, ctypes.c_int, *(_POINTER,) * 3, *(ctypes.c_long,) * 2, _POINTER, ctypes.c_int, _POINTER)
FUNCTIONS = {
    "hydraprune_encode": _ENCODE,
    "hydraprune_encode_first": _ENCODE,
    "hydraprune_linear": (*(_POINTER,) * 3, ctypes.c_long, ctypes.c_int, _POINTER),
    "hydraprune_linear_tiles": (*(_POINTER,) * 3, *(ctypes.c_long,) * 2),
    "hydraprune_target": (_POINTER,) * 3,
}
_NAMES = {16: "AVX-512", 8: "AVX2"}


@dataclass(frozen=True)
class Compiled:
    """The loaded kernels.

    Args:
        functions: those of `FUNCTIONS`, by name.
        instructions: what they were compiled for, such as `AVX-512`.
        bf16: whether they can multiply in bfloat16.
        amx: whether they can multiply tiles in bfloat16, which the operating system has to allow.
        folder, target: what they were compiled with, for copies.
    """

    functions: ctypes.CDLL
    instructions: str
    bf16: bool
    amx: bool
    folder: Path
    target: tuple[str, ...]

    def __reduce__(self) -> tuple[Callable[..., Compiled], tuple[Path, tuple[str, ...]]]:
        return compile_kernels, (self.folder, self.target)


def compile_kernels(folder: Path, target: Sequence[str] = NATIVE) -> Compiled:
    """The kernels, compiled into `folder` unless they are there already for this kind of processor.

    Args:
        target: options of the compiler that choose the instructions; `-march=x86-64-v3` is AVX2.

    Raises:
        OSError, AttributeError, SubprocessError: they cannot be compiled or loaded here.
    """
    functions = native_code.build(SOURCE, folder, FUNCTIONS, (*target, *_FLAGS))
    lanes, bf16, amx = ctypes.c_int32(), ctypes.c_int32(), ctypes.c_int32()
    functions.hydraprune_target(ctypes.byref(lanes), ctypes.byref(bf16), ctypes.byref(amx))
    plain = "NEON" if platform.machine() in ("aarch64", "arm64") else "portable"
    instructions = _NAMES.get(lanes.value, plain) + " BF16" * bf16.value
    return Compiled(functions, instructions, bool(bf16.value), bool(amx.value), folder, tuple(target))
