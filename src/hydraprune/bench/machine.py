"""The machine that a bench runs on: its processor, the cores to pin to, its load."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.bench_report import Machine
from hydraprune.utils.system import total_memory

# Those that the kernels of the engines choose by.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
_CPUINFO = Path("/proc/cpuinfo")


def cores_for(threads: int) -> list[int] | None:
    """The cores to pin `threads` threads to: the last ones, since the system prefers the first; None if it cannot pin.

    Raises:
        UserError: this process may use fewer.
    """
    if sys.platform != "linux":
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise UserError(f"there are {len(allowed)} cores", key=f"--threads {threads}", cure="give at most that many")
    return allowed[-threads:]


def machine(pinned: list[int] | None, cpuinfo: Path = _CPUINFO) -> Machine:
    """This machine as it is now.

    Args:
        pinned: cores of the engines.
        cpuinfo: where Linux describes the processor.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    described = dict(re.findall(r"^([\w ]+?)\s*:[ \t]*(.*)$", text.split("\n\n", 1)[0], re.MULTILINE))
    cpu = described.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key} {described[key]}" for key in ("cpu family", "model", "stepping") if key in described]
    has = set(described.get("flags", "").split())
    return Machine(
        cpu=f"{cpu} ({', '.join(numbers)})" if numbers else cpu,
        flags=tuple(flag for flag in FLAGS if flag in has),
        cores=os.cpu_count() or 1,
        pinned=None if pinned is None else tuple(pinned),
        memory_bytes=total_memory(),
        load=os.getloadavg() if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    )
