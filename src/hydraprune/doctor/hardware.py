"""Cores, threads, memory, accelerators, compiler."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from hydraprune.doctor.result import Finding, bad, ok, together, warn
from hydraprune.errors import one_line
from hydraprune.utils.files import PROBE, nearest
from hydraprune.utils.system import left_in_cgroup

_GB = 1_000_000_000
# A small BERT trains in this much memory.
_LITTLE_MEMORY = 2 * _GB
# For one call of the compiler, in seconds.
_COMPILING = 20.0
_CGROUP = Path("/sys/fs/cgroup")


def cores(cgroups: Path = _CGROUP) -> int:
    """Processor cores that this process may use: its affinity, and the quota of its container."""
    mask = getattr(os, "sched_getaffinity", None)
    allowed = len(mask(0)) if mask is not None else os.cpu_count() or 1
    quotas = []
    for text in _limits("cpu.max", cgroups):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(math.ceil(int(quota) / int(period)))
    return max(1, min([allowed, *quotas]))


def _limits(name: str, cgroups: Path) -> Iterator[str]:
    """What the process's control group and those above it say."""
    for folder in _groups(cgroups):
        with suppress(OSError):
            yield (folder / name).read_text(encoding="utf-8").strip()


def _groups(cgroups: Path) -> Iterator[Path]:
    """The process's control group and those above it (version 2; from inside a container the outermost)."""
    own = ""
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next((line[3:] for line in lines if line.startswith("0::")), "")
    place = cgroups / own.lstrip("/")
    for folder in (place, *place.parents):
        if folder == cgroups.parent:
            return
        yield folder


def threads(used: int, cores: int, jobs: int, environ: Mapping[str, str]) -> Finding:
    """Threads that torch computes with, against the cores for them.

    Args:
        used: threads of one job.
        jobs: at a time on this machine.
    """
    of = f"{jobs} jobs of {_count(used, 'thread')}" if jobs > 1 else _count(used, "thread")
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    said = ", ".join(f"{name}={environ[name]}" for name in names if name in environ)
    found = f"{of} on {_count(cores, 'core')}" + (f" ({said})" if said else "")
    if used * jobs <= cores:
        return ok(found)
    fair = max(1, cores // jobs)
    todo = f"runtime.threads={fair}; it is part of what makes a result"
    if fair * jobs > cores:
        todo += f", and hydra.launcher.n_jobs={cores}"
    if environ.get("OMP_WAIT_POLICY", "").lower() == "active" or environ.get("GOMP_SPINCOUNT", "").startswith("inf"):
        todo += "; unset OMP_WAIT_POLICY and GOMP_SPINCOUNT, since threads that spin keep the others from working"
    return warn(found, todo)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def memory(meminfo: Path = Path("/proc/meminfo"), cgroups: Path = _CGROUP) -> Finding:
    """Main memory that is there and that is free, in this process's container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = None
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limits = [int(text) for text in _limits("memory.max", cgroups) if text.isdigit()]
    total = min([total, *limits])
    left = [bytes_left for folder in _groups(cgroups) for bytes_left in left_in_cgroup(folder)]
    if free is not None or left:
        free = min([total if free is None else free, *left])
    if free is None:
        return ok(f"{total / _GB:.1f} GB")
    found = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    if free >= _LITTLE_MEMORY:
        return ok(found)
    return warn(found, "end other programs, or train a smaller model with training.batch_size=8")


def devices(torch: ModuleType, wanted: str) -> Finding:
    """Accelerators that torch finds, and those that it should."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    found = [_cuda(torch, index) for index in range(torch.cuda.device_count())] if cuda else []
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    parts = [ok(", ".join(found) or "CPU only")]
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    if built and not cuda:
        why = next((str(one.message).split(" (Triggered")[0] for one in told if "CUDA" in str(one.message)), "")
        parts.append(
            warn(
                f"torch is built for {'CUDA' if torch.version.cuda else 'ROCm'} {built} and finds no device"
                + (f" ({' '.join(why.split())[:200]})" if why else ""),
                "see whether nvidia-smi (rocm-smi) lists one, whether CUDA_VISIBLE_DEVICES hides it, and whether the "
                "driver is new enough; without a GPU all is well",
            )
        )
    if not built and Path("/proc/driver/nvidia/gpus").is_dir():
        parts.append(warn("an NVIDIA GPU that torch is not built for", "pip install a torch for CUDA: pytorch.org"))
    if (wanted == "cuda" and not cuda) or (wanted == "mps" and not torch.backends.mps.is_available()):
        parts.append(bad(f"training.device={wanted} is not there", "training.device=auto or cpu"))
    return together(parts)


def _cuda(torch: ModuleType, index: int) -> str:
    shown = torch.cuda.get_device_properties(index)
    try:
        free = f"{torch.cuda.mem_get_info(index)[0] / _GB:.0f} of "
    except RuntimeError:  # another process has all of it, or has it for itself
        free = "none of "
    return f"cuda:{index} {shown.name} ({free}{shown.total_memory / _GB:.0f} GB free)"


def compiler(cache: Path, wanted: bool) -> Finding:
    """Whether the pruning kernel can be compiled and loaded where a run would keep it; leaves nothing there."""
    if not wanted:
        return ok("not used (runtime.compiled=false)")
    from hydraprune.sparsity import native_code as native
    from hydraprune.sparsity import saliency_kernels as products

    command = native.compiler()
    if command is None:
        return warn("no C compiler on PATH; torch does it, somewhat slower", "install gcc or clang, or load its module")
    kept = cache / "native"
    if kept.is_dir() and not native.private(kept):
        return warn(f"{command}, not used: others may write in {kept}", f"chmod go-w {kept}, if it is yours")
    place = nearest(cache)
    try:
        folder = tempfile.mkdtemp(prefix=PROBE, dir=place)
    except OSError:
        return ok(f"{command}, not tried: cannot write in {place}")
    try:
        native.build(products.SOURCE, Path(folder), products.FUNCTIONS, seconds=_COMPILING)
    except subprocess.TimeoutExpired:
        return warn(f"{command} takes more than {_COMPILING:g} s", "runtime.compiled=false, for the same bits")
    except native.UNFIT as error:
        todo = "install the C library's headers (libc6-dev, glibc-devel), or runtime.compiled=false, for the same bits"
        if "failed to map" in str(error) or "not permitted" in str(error):
            todo = f"nothing may be run from {place} (noexec?); give another cache.dir"
        return warn(one_line(error)[:300], todo)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ok(f"{command} compiles the pruning kernel")
