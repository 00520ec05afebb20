"""Checks of cores, threads, memory, accelerators and the C compiler."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from hydraprune.doctor.result import Finding, bad, merge, ok, warn
from hydraprune.errors import one_line
from hydraprune.utils.files import PROBE, nearest
from hydraprune.utils.sizes import GB, format_bytes
from hydraprune.utils.system import available_memory, cgroup_folders, total_memory

# A small BERT trains in this much memory.
_LITTLE_MEMORY = 2 * GB
# The time limit for one call of the compiler, in seconds.
_COMPILE_SECONDS = 20.0


def cores(system: Path = Path("/")) -> int:
    """Cores that this process may use: by its CPU affinity and the quotas of its control groups.

    Args:
        system: the folder that contains `proc` and `sys`.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quotas = (_cpu_quota(folder, version) for folder, version in cgroup_folders("cpu", system))
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _cpu_quota(folder: Path, version: int) -> float | None:
    """Cores that a control group allows; None without a limit."""
    files = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    with suppress(OSError, ValueError):
        quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in files).split()
        if quota.isdigit():  # neither `max` nor -1
            return int(quota) / int(period)
    return None


def threads(used: int, cores: int, jobs: int, environ: Mapping[str, str]) -> Finding:
    """torch's threads against the cores.

    Args:
        used: threads of one job.
        jobs: at a time on this machine.
    """
    each = f"{jobs} jobs of {_count(used, 'thread')}" if jobs > 1 else _count(used, "thread")
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    variables = ", ".join(f"{name}={environ[name]}" for name in names if name in environ)
    found = f"{each} on {_count(cores, 'core')}" + (f" ({variables})" if variables else "")
    if used * jobs <= cores:
        return ok(found)
    fair = max(1, cores // jobs)
    todo = f"runtime.threads={fair}, which is part of a run's config"
    if fair * jobs > cores:
        todo += f", and hydra.launcher.n_jobs={cores}"
    if environ.get("OMP_WAIT_POLICY", "").lower() == "active" or environ.get("GOMP_SPINCOUNT", "").startswith("inf"):
        todo += "; unset OMP_WAIT_POLICY and GOMP_SPINCOUNT: spinning threads keep the others from working"
    return warn(found, todo)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def memory(system: Path = Path("/")) -> Finding:
    """Total and available main memory, within the limits of the control groups.

    Args:
        system: the folder that contains `proc` and `sys`.
    """
    available = available_memory(system)
    found = f"{format_bytes(available)} of {format_bytes(total_memory(system))} free"
    if available >= _LITTLE_MEMORY:
        return ok(found)
    return warn(found, "end other programs, or train a smaller model with training.batch_size=8")


def devices(torch: ModuleType, wanted: str) -> Finding:
    """Accelerators that torch finds, and those that it should find.

    Args:
        wanted: `training.device`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    found = [_cuda(torch, index) for index in range(torch.cuda.device_count())] if cuda else []
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    parts = [ok(", ".join(found) or "CPU only")]
    built_for = torch.version.cuda or getattr(torch.version, "hip", None)
    if built_for and not cuda:
        why = next((str(one.message).split(" (Triggered")[0] for one in caught if "CUDA" in str(one.message)), "")
        parts.append(
            warn(
                f"torch is built for {'CUDA' if torch.version.cuda else 'ROCm'} {built_for} and finds no device"
                + (f" ({' '.join(why.split())[:200]})" if why else ""),
                "check that nvidia-smi (rocm-smi) lists one, that CUDA_VISIBLE_DEVICES does not hide it, and that the "
                "driver is new enough; ignore this on a machine without a GPU",
            )
        )
    if not built_for and Path("/proc/driver/nvidia/gpus").is_dir():
        parts.append(
            warn("torch is built without CUDA, but there is an NVIDIA GPU", "install a torch for CUDA: pytorch.org")
        )
    if (wanted == "cuda" and not cuda) or (wanted == "mps" and not torch.backends.mps.is_available()):
        parts.append(bad(f"no device for training.device={wanted}", "training.device=auto or cpu"))
    return merge(parts)


def _cuda(torch: ModuleType, index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    try:
        free = format_bytes(torch.cuda.mem_get_info(index)[0])
    except RuntimeError:  # another process has all of it, or exclusive access
        free = "none"
    return f"cuda:{index} {properties.name} ({free} of {format_bytes(properties.total_memory)} free)"


def compiler(cache: Path, enabled: bool) -> Finding:
    """Whether the C kernel for pruning can be compiled and loaded in the cache; leaves nothing there."""
    if not enabled:
        return ok("not used (runtime.compiled=false)")
    from hydraprune.sparsity import native_code, saliency_kernels

    command = native_code.compiler()
    if command is None:
        return warn(
            "no C compiler on PATH: PyTorch is used instead, somewhat slower",
            "install gcc or clang, or load its module",
        )
    kernels = cache / "native"
    if kernels.is_dir() and not native_code.private(kernels):
        return warn(f"{command}, not used: {kernels} is writable by others", f"chmod go-w {kernels}, if it is yours")
    place = nearest(cache)
    try:
        folder = tempfile.mkdtemp(prefix=PROBE, dir=place)
    except OSError:
        return ok(f"{command}, not tried: cannot write in {place}")
    try:
        native_code.build(saliency_kernels.SOURCE, Path(folder), saliency_kernels.FUNCTIONS, seconds=_COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        return warn(
            f"{command} takes more than {_COMPILE_SECONDS:g} s", "runtime.compiled=false, which gives the same results"
        )
    except native_code.UNFIT as error:
        todo = "install the C library's headers (libc6-dev, glibc-devel), or runtime.compiled=false: the same results"
        if "failed to map" in str(error) or "not permitted" in str(error):
            todo = f"give another cache.dir: {place} does not allow execution (mounted noexec?)"
        return warn(one_line(error)[:300], todo)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ok(f"{command} compiles the pruning kernel")
