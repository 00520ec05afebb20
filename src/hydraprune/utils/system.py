"""Memory and threads of this process: allocator, idle OpenMP threads, available memory. Imports no library."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

# Iterations that an idle thread spins before it sleeps: enough to bridge the gaps between two operations of a step
# (more gains a few percent at most), few enough to leave the core to others (benchmarks/two_jobs.py).
SPINS = 10_000
# glibc's numbers for mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step, which needs the same amount again.

    By default every tensor above 32 MiB, such as the gradient of an embedding table, is returned to
    the system when it is freed, and page faults bring it back in every step. Set
    MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ in the environment to choose for yourself.

    Returns:
        Whether it was done: only with glibc, and if the environment does not set these variables.
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return False
    libc = ctypes.CDLL(None)
    # Older versions accept at most 32 MiB as the size from which memory is mapped.
    mapped = libc.mallopt(_M_MMAP_THRESHOLD, _GIB) or libc.mallopt(_M_MMAP_THRESHOLD, _GIB >> 5)
    return bool(libc.mallopt(_M_TRIM_THRESHOLD, 2 * _GIB - 1) and mapped)


def let_threads_sleep() -> bool:
    """Make torch's idle threads sleep soon, so that jobs that share cores do not starve each other.

    OpenMP threads wait for work by spinning. With more threads than cores, the spinning ones keep
    the working ones from running, and everything is many times slower. Call this before torch is
    imported. Set OMP_WAIT_POLICY or GOMP_SPINCOUNT to choose for yourself.

    Returns:
        Whether it was done.
    """
    if "torch" in sys.modules or {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True


@dataclass(frozen=True)
class CgroupLimit:
    """The memory limit of one control group, in bytes.

    Args:
        limit: of the group.
        left: of the limit; files in the page cache count as free.
    """

    limit: int
    left: int


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that this process can still allocate: of the machine, or of its control group if fewer.

    Args:
        system: the folder that contains `proc` and `sys`.
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *(group.left for group in cgroup_limits(system))])


def total_memory(system: Path = Path("/")) -> int:
    """Bytes of main memory that this process may use in all: of the machine, or of its control group if fewer."""
    import psutil

    return min([int(psutil.virtual_memory().total), *(group.limit for group in cgroup_limits(system))])


def cgroup_limits(system: Path = Path("/")) -> list[CgroupLimit]:
    """The memory limits of the control groups around this process (a container, a batch job), version 1 and 2."""
    return [limit for folder, version in cgroup_folders("memory", system) for limit in _limit_of(folder, version)]


def cgroup_folders(controller: str, system: Path = Path("/")) -> list[tuple[Path, int]]:
    """(folder, version 1 or 2) of the control groups around this process that may have limits of `controller`."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounted = system / "sys/fs/cgroup" / controllers
        group = mounted / inside.lstrip("/")
        # In a container the group's path may not exist; its own group is then at the mount point.
        folders = {group, mounted, *(above for above in group.parents if mounted in above.parents)}
        found += [(folder, 1 if controllers else 2) for folder in sorted(folders)]
    return found


# By version: the limit, the usage, and the lines of memory.stat that count the page cache.
_MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    2: ("memory.max", "memory.current", ("inactive_file", "active_file")),
}


def _limit_of(folder: Path, version: int) -> list[CgroupLimit]:
    """The limit of one control group; empty if it has none or cannot be read."""
    limit_file, usage_file, cached = _MEMORY_FILES[version]
    try:
        limit, used = (folder / limit_file).read_text().strip(), int((folder / usage_file).read_text())
        words = (folder / "memory.stat").read_text().split()
        counts = dict(zip(words[::2], words[1::2], strict=False))
        in_cache = sum(int(counts.get(name, 0)) for name in cached)
        return [] if limit == "max" else [CgroupLimit(int(limit), max(0, int(limit) - used + in_cache))]
    except (OSError, ValueError):
        return []
