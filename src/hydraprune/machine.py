"""How this process uses its machine: allocator and waiting threads. Light to import."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# Rounds that an idle thread spins before it sleeps: enough to bridge the gaps between two operations
# of a step (more gains a few percent at most), few enough to leave the core to others (benchmarks/two_jobs.py).
SPINS = 10_000
# glibc's numbers for mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step, which asks for the same again.

    By default every tensor above 32 MiB, the gradient of an embedding table for one, is given back
    to the system when freed and faulted in anew, page by page, in every step. Set
    MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ in the environment to choose for yourself.

    Returns:
        Whether it was done: only with glibc, and where the environment does not say otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return False
    libc = ctypes.CDLL(None)
    # Older versions take at most 32 MiB as the size from which memory is mapped, and so freed, at once.
    mapped = libc.mallopt(_M_MMAP_THRESHOLD, _GIB) or libc.mallopt(_M_MMAP_THRESHOLD, _GIB >> 5)
    return bool(libc.mallopt(_M_TRIM_THRESHOLD, 2 * _GIB - 1) and mapped)


def let_threads_sleep() -> bool:
    """Have torch's idle threads give their core up soon, so that jobs that share cores do not starve each other.

    OpenMP threads wait for work by spinning. When there are more of them than cores, those that
    spin keep those that work from running, and everything is many times slower. It must happen
    before torch is loaded. Set OMP_WAIT_POLICY or GOMP_SPINCOUNT to choose for yourself.

    Returns:
        Whether it was done.
    """
    if "torch" in sys.modules or {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True
