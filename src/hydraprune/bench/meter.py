"""Time and memory that a model takes, in the process that loads it. Needs no library of an engine."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Time and memory that a model takes to load, and memory from then on."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._before = 0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """The block in which the model is loaded; its libraries were imported before."""
        gc.collect()
        _forget_peak()
        self._before = _resident()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu

    def resident(self) -> int:
        """Bytes in memory now, above those before loading."""
        gc.collect()
        return max(0, _resident() - self._before)

    def peak(self) -> int | None:
        """The most bytes since loading began, above those before it; None where the system does not tell."""
        highest = _proc_status("VmHWM")
        return None if highest is None else max(0, highest - self._before)


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _proc_status(name: str) -> int | None:
    """Bytes of a line of /proc/self/status. `getrusage` will not do: its peak is inherited from the parent process."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
    except OSError:
        return None


def _forget_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # no Linux, or not allowed: the peak may then be that of an import
