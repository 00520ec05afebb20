"""How this process uses its machine: allocator, waiting threads, memory. Light to import."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

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


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that this process may still take: of the machine, or of its cgroup (a container, a batch job) if fewer.

    Args:
        system: where `proc` and `sys` are.
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_in_cgroups(system)])


def _left_in_cgroups(system: Path) -> list[int]:
    """Of every cgroup around this process that has a limit and lets it be read, the bytes left."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mounted = system / "sys/fs/cgroup" / controllers
        group = mounted / inside.lstrip("/")
        # A container may not see the path that its group has outside; then its own is the mounted one.
        for folder in {group, mounted, *(above for above in group.parents if mounted in above.parents)}:
            left += left_in_cgroup(folder, *(_FILES_V1 if controllers else ()))
    return left


_CACHED = ("inactive_file", "active_file")
_FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", tuple(f"total_{name}" for name in _CACHED))


def left_in_cgroup(
    folder: Path, limit: str = "memory.max", usage: str = "memory.current", cache: tuple[str, ...] = _CACHED
) -> list[int]:
    """The bytes that one cgroup leaves, of version 2 if not said; nothing where it has no limit or cannot be read.

    Args:
        folder: the cgroup's.
        limit, usage: its files.
        cache: the lines of memory.stat that count what is kept of files.
    """
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        counts = (folder / "memory.stat").read_text().split()
        kept = dict(zip(counts[::2], counts[1::2], strict=False))
        # What is kept of files is given back when somebody asks for memory.
        cached = sum(int(kept.get(name, 0)) for name in cache)
        return [] if most == "max" else [max(0, int(most) - used + cached)]
    except (OSError, ValueError):
        return []
