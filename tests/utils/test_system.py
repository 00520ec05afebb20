"""Allocator, idle threads and available memory; variables that the user has set take precedence."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from hydraprune.utils.system import SPINS, available_memory

OURS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no such setting")


def printed(program: str, **environment: str) -> str:
    """The output of a new process, in which only these of our variables are set."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**inherited, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


KEEP = "from hydraprune.utils.system import keep_freed_memory; print(keep_freed_memory())"


@glibc
def test_freed_memory_is_kept() -> None:
    assert printed(KEEP) == "True"


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_the_allocator_settings_of_the_user_are_kept(name: str) -> None:
    assert printed(KEEP, **{name: "1000000"}) == "False"


FAULTS = """
import resource
from hydraprune.utils.system import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
first, second = faults(), faults()
print(first > 10 and second < first / 10)
"""


@glibc
def test_kept_memory_causes_no_page_faults() -> None:
    assert printed(FAULTS) == "True"
    assert printed(FAULTS, MALLOC_MMAP_THRESHOLD_="1000000") == "False"


SLEEP = """
import os, sys
from hydraprune.utils.system import let_threads_sleep
print(let_threads_sleep(), os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


def test_idle_threads_sleep() -> None:
    assert printed(SLEEP) == f"True {SPINS} None"


@pytest.mark.parametrize(("name", "left"), [("OMP_WAIT_POLICY", "None active"), ("GOMP_SPINCOUNT", "active None")])
def test_the_thread_settings_of_the_user_are_kept(name: str, left: str) -> None:
    assert printed(SLEEP, **{name: "active"}) == f"False {left}"


def test_after_torch_is_imported_nothing_is_set() -> None:
    assert printed(f"import torch{SLEEP}") == "False None None"


@pytest.mark.parametrize("module", ["hydraprune.launch", "hydraprune.cli"])
def test_the_command_line_lets_threads_sleep_before_torch_is_loaded(module: str) -> None:
    program = f"import {module}, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    assert printed(program) == f"{SPINS} False"
    assert printed(program, OMP_WAIT_POLICY="passive") == "None False"


CGROUPS = {
    # /proc/self/cgroup, the group's folder, its limit and usage, its page cache
    "v2": ("0::/job\n", "sys/fs/cgroup/job", ("memory.max", "memory.current"), "inactive_file"),
    "v1": (
        "4:memory:/job\n",
        "sys/fs/cgroup/memory/job",
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
    "a container's own": ("0::/outside/of/it\n", "sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"),
    "a group above": ("0::/job/step\n", "sys/fs/cgroup/job", ("memory.max", "memory.current"), "inactive_file"),
}


@pytest.mark.parametrize("kind", CGROUPS)
def test_the_available_memory_is_that_of_the_control_group(kind: str, tmp_path: Path) -> None:
    listed, folder, (limit, usage), cache = CGROUPS[kind]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(listed)
    group = tmp_path / folder
    group.mkdir(parents=True)
    assert available_memory(tmp_path) > 1 << 20
    for name, text in (
        (limit, "9000"),
        (usage, "5000"),
        ("memory.stat", f"anon 4000\n{cache} 700\n{cache.replace('inactive', 'active')} 300\n"),
    ):
        (group / name).write_text(f"{text}\n")
    assert available_memory(tmp_path) == 5000
    (group / limit).write_text("max\n" if limit == "memory.max" else f"{1 << 62}\n")
    assert available_memory(tmp_path) > 1 << 20
