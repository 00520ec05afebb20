"""The checks of doctor: folders, locks, room, compiler, cores, versions, accelerators."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from hydraprune.config.composition import LoadedPath
from hydraprune.doctor import hardware, network, software, storage
from hydraprune.doctor.render import as_lines
from hydraprune.doctor.result import Finding, State, bad, ok, warn
from hydraprune.doctor.runner import Check, run_checks
from hydraprune.utils.sizes import format_bytes

GB = 10**9


def fails(error: Exception) -> Any:
    def call(*_: object, **__: object) -> NoReturn:
        raise error

    return call


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that the checks must leave empty."""
    place = tmp_path / "disk"
    place.mkdir()
    return place


def test_a_check_that_fails_or_hangs_becomes_a_finding() -> None:
    found = run_checks(
        [
            Check("fails", fails(RuntimeError("x")), 5),
            Check("lacks", fails(ImportError("no torch")), 5),
            Check("leaves", lambda: sys.exit(3), 5),
            Check("times out itself", fails(TimeoutError("theirs")), 5),
            Check("hangs", lambda: time.sleep(60) or ok(""), 0.05, State.BAD),
            Check("works", lambda: ok("well"), 5),
        ]
    )
    assert [one.name for one in found] == ["fails", "lacks", "leaves", "times out itself", "hangs", "works"]
    assert [one.state.value for one in found] == ["warn", "warn", "warn", "warn", "bad", "ok"]
    assert "RuntimeError: x" in found[0].found
    assert found[1].found == "not checked (no torch)"
    assert "TimeoutError: theirs" in found[3].found
    assert found[4].found == "no answer within 0.05 s"


def test_findings_contain_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HF_TOKEN": "secret-1-of-hub",
        "WANDB_API_KEY": "secret-2-of-wandb",
        "SHELL": "/bin/bash",
    }.items():
        monkeypatch.setenv(name, value)
    text = "secret-1-of-hub secret-2-of-wandb /bin/bash 1 https://me:pw@host/x"
    (found,) = run_checks([Check("name", lambda: warn(text, f"say {text}"), 5)])
    assert found.found == "<redacted> <redacted> /bin/bash 1 https://me:<redacted>@host/x"
    assert found.todo == f"say {found.found}"


@pytest.mark.parametrize("width", [80, 100])
def test_lines_are_wrapped_at_the_width_of_the_terminal(width: int) -> None:
    found = Finding(State.BAD, " ".join(["word"] * 60), "do this " * 20, "name")
    lines = [line.plain for line in as_lines([found, Finding(State.OK, "well", name="other")], width)]
    assert max(map(len, lines)) <= width
    assert " ".join(lines).count("word") == 60
    assert lines[-1] == "A run does not work here: 1 to fix"
    assert len(as_lines([found], None)) == 3


def test_a_folder_that_can_be_used(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "ext4")
    found = storage.folder("run.root", disk / "a" / "b")
    assert found.state is not State.BAD
    assert f"{disk / 'a' / 'b'} (not created yet), writes, locks, " in found.found
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("os.fsync", OSError(errno.ENOSPC, "No space left on device"), "cannot write (No space left on device)"),
        ("tempfile.mkdtemp", OSError(errno.EROFS, "Read-only file system"), "cannot write (Read-only file system)"),
        ("fcntl.flock", OSError(errno.ENOLCK, "No locks available"), "cannot lock files (No locks available)"),
    ],
)
def test_a_folder_that_cannot_be_used(
    disk: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, message: str
) -> None:
    monkeypatch.setattr(call, fails(error))
    found = storage.folder("run.root", disk)
    assert found.state is State.BAD
    assert message in found.found
    assert "run.root=/path" in found.todo
    assert storage.folder("HF_HOME", disk, needed=False).state is State.WARN
    assert list(disk.iterdir()) == []


def test_locks_that_do_not_exclude_others(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    found = storage.folder("run.root", disk)
    assert found.state is State.WARN
    assert "two runs can hold one lock" in found.found
    monkeypatch.setattr(fcntl, "flock", fails(OSError(errno.ENOSYS, "not implemented")))
    assert "the file system has no locks" in storage.folder("run.root", disk).found


def test_a_folder_below_a_file(disk: Path) -> None:
    (disk / "file").touch()
    found = storage.folder("cache.dir", disk / "file" / "x")
    assert (found.state, found.todo) == (State.BAD, "give another folder: cache.dir=/path")


@pytest.mark.parametrize(("free", "state"), [(0, State.BAD), (3 * GB, State.WARN), (500 * GB, State.OK)])
def test_room_on_the_disk(disk: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "ext4")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = storage.folder("run.root", disk)
    assert found.state is state
    assert f"{format_bytes(free)} free" in found.found
    assert ("another disk: run.root=/path" in found.todo) == (state is not State.OK)


def test_room_for_files(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=100, f_favail=0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500 * GB))
    found = storage.folder("run.root", disk)
    assert found.state is State.BAD
    assert "room for 0 files" in found.found


def test_a_cache_that_can_outgrow_its_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "ext4")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * GB))
    (disk / "tokens").mkdir()
    (disk / "tokens" / f"{'0' * 32}.npy").write_bytes(bytes(10**8))
    assert "holds 100 MB of at most 8 GB" in storage.cache(disk, 8.0).found
    found = storage.cache(disk, 20.0)
    assert (found.state, found.todo) == (State.WARN, "cache.max_gb=5")
    assert "holds 100 MB and may grow by 19.9 GB" in found.found
    monkeypatch.setattr(os, "fsync", fails(OSError(errno.EROFS, "Read-only file system")))
    assert storage.cache(disk, 20.0).state is State.BAD
    assert storage.cache(disk, 0.0).state is State.WARN


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:1 / / rw - ext4 /dev/sda rw\n"
        "23 22 0:2 / /my\\040data rw,noatime shared:1 master:2 - nfs4 server:/x rw\n"
        "24 22 0:3 / /my rw - tmpfs tmpfs rw\n"
        "25 22 0:4 / /over rw - ext4 /dev/sdb rw\n"
        "26 22 0:5 / /over rw - lustre x rw\n"
    )
    places = ("/home", "/my data/runs", "/my/x", "/over")
    assert [storage.file_system(Path(p), mounts) for p in places] == ["ext4", "nfs4", "tmpfs", "lustre"]
    assert storage.file_system(Path("/x"), tmp_path / "none") == ""


def test_network_and_memory_file_systems_are_named(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "nfs4")
    assert "nfs4, locks tested from this machine only" in storage.folder("run.root", disk).found
    monkeypatch.setattr(storage, "file_system", lambda _: "tmpfs")
    assert "lost at the next reboot" in storage.folder("run.root", disk).found


def test_a_compiler_that_works(disk: Path) -> None:
    found = hardware.compiler(disk / "cache", True)
    assert (found.state, found.todo) == (State.OK, "")
    assert found.found.endswith("compiles the pruning kernel")
    assert list(disk.iterdir()) == []
    (disk / "native").mkdir()
    (disk / "native").chmod(0o777)
    assert "is writable by others" in hardware.compiler(disk, True).found


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "no C compiler on PATH"),
        ("echo 'products.c:1: fatal error: math.h: No such file' >&2; exit 1", "math.h: No such file"),
        ("exec sleep 30", "takes more than"),
        ("for last; do :; done; while [ $# -gt 0 ]; do [ $1 = -o ] && echo junk >$2; shift; done", "invalid ELF"),
    ],
)
def test_a_compiler_that_does_not_work(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str
) -> None:
    monkeypatch.setattr(hardware, "_COMPILE_SECONDS", 0.5)
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "sleep"):
        (programs / program).symlink_to(str(shutil.which(program)))
    if script is not None:
        (programs / "cc").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    found = hardware.compiler(disk, True)
    assert found.state is State.WARN
    assert found.todo
    assert message in found.found or (message == "invalid ELF" and "file too short" in found.found)
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("used", "jobs", "todo"),
    [(4, 1, ""), (2, 2, ""), (5, 1, "runtime.threads=4,"), (2, 3, "runtime.threads=1,"), (1, 9, "n_jobs=4")],
)
def test_threads_against_cores(used: int, jobs: int, todo: str) -> None:
    found = hardware.threads(used, 4, jobs, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "active"})
    assert "OMP_NUM_THREADS=2" in found.found
    assert (found.state is State.OK) == (todo == "")
    assert todo in found.todo
    assert ("unset OMP_WAIT_POLICY" in found.todo) == (todo != "")


@pytest.fixture(params=["v1", "v2"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, str]], None]:
    """Writes the limits of a control group, of either version, below `tmp_path` as the root of the system."""
    v1 = {"memory.max": "memory.limit_in_bytes", "memory.current": "memory.usage_in_bytes"}
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n" if request.param == "v2" else "3:cpu:/job\n4:memory:/job\n")

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            if request.param == "v1":
                name = v1.get(name, name)
                text = re.sub(r"\b(in)?active_file", r"total_\g<0>", text)
                folder = tmp_path / "sys/fs/cgroup" / name.partition(".")[0] / "job"
                if name == "cpu.max":
                    quota, period = text.replace("max", "-1").split()
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / "cpu.cfs_quota_us").write_text(quota)
                    (folder / "cpu.cfs_period_us").write_text(period)
                    continue
            else:
                folder = tmp_path / "sys/fs/cgroup/job"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    return write


def test_the_limits_of_a_control_group(group: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    unlimited = hardware.cores(tmp_path)
    group({"cpu.max": "max 100000\n"})
    assert hardware.cores(tmp_path) == unlimited
    group({"cpu.max": "50000 100000\n"})
    assert hardware.cores(tmp_path) == 1
    total = hardware.memory(tmp_path).found.split(" of ")[1]
    group({"memory.max": str(3 * GB), "memory.current": str(2 * GB), "memory.stat": f"anon {2 * GB}\n"})
    found = hardware.memory(tmp_path)
    assert total != "3.0 GB free"
    assert (found.state, found.found) == (State.WARN, "1.0 GB of 3.0 GB free")
    cached = GB // 4
    group({"memory.stat": f"anon {GB}\ninactive_file {cached}\nactive_file {cached}\n"})
    assert hardware.memory(tmp_path).found == "1.5 GB of 3.0 GB free"


def test_packages_outside_their_ranges() -> None:
    asked = ["torch<2.14,>=2.6", "datasets>=4", "wandb>=0.31", "evaluate", 'pytest>=8; extra == "test"']
    well = {"torch": "2.13.0+cpu", "datasets": "5.2.0", "wandb": "0.31.0", "evaluate": "1"}
    assert software.packages(asked, well.get) == ok("torch 2.13.0+cpu, datasets 5.2.0, wandb 0.31.0")
    newer = software.packages(asked, {**well, "torch": "2.14.1"}.get)
    assert newer.state is State.WARN
    assert "torch 2.14.1 is newer than the tested versions (<2.14,>=2.6)" in newer.found
    older = software.packages(asked, {**well, "torch": "2.5.1", "wandb": "0.1"}.get)
    assert (older.state, older.todo) == (State.BAD, "pip install 'torch<2.14,>=2.6' 'wandb>=0.31'")
    without = software.packages(asked, {"torch": "2.6.0", "datasets": "4.0", "evaluate": "1"}.get)
    assert (without.state, without.todo) == (State.WARN, "pip install 'wandb>=0.31'")
    assert software.packages(asked, {**well, "datasets": None}.get).state is State.BAD


def test_installed_and_broken_launchers() -> None:
    found = software.launchers("basic", {"hydra-joblib-launcher": "1.2", "hydra-submitit-launcher": "1.2"}.get)
    assert found.found.startswith("basic (one job at a time), joblib; not installed: ")
    assert (found.state, "submitit cannot be imported" in found.found) == (State.WARN, True)
    assert software.launchers("submitit", {"hydra-submitit-launcher": "1.2"}.get).state is State.BAD


def torch_with(cards: int, built: str | None, message: str = "") -> Any:
    def available() -> bool:
        if message:
            warnings.warn(message, stacklevel=1)
        return cards > 0

    cuda = SimpleNamespace(
        is_available=available,
        device_count=lambda: cards,
        get_device_properties=lambda index: SimpleNamespace(name=f"H100-{index}", total_memory=80 * GB),
        mem_get_info=lambda index: (70 * GB, 80 * GB) if index == 0 else fails(RuntimeError("out of memory"))(),
    )
    mps = SimpleNamespace(is_available=lambda: False)
    return SimpleNamespace(cuda=cuda, backends=SimpleNamespace(mps=mps), version=SimpleNamespace(cuda=built, hip=None))


def test_accelerators() -> None:
    assert hardware.devices(torch_with(0, None), "auto").found.startswith("CPU only")
    two = hardware.devices(torch_with(2, "12.6"), "cuda")
    assert two == ok("cuda:0 H100-0 (70.0 GB of 80.0 GB free), cuda:1 H100-1 (none of 80.0 GB free)")
    hidden = hardware.devices(torch_with(0, "12.6", "CUDA initialization: driver too old (Triggered at x)"), "auto")
    assert hidden.state is State.WARN
    assert "torch is built for CUDA 12.6 and finds no device (CUDA initialization: driver too old)" in hidden.found
    assert "nvidia-smi" in hidden.todo
    assert hardware.devices(torch_with(0, "12.6"), "cuda").state is State.BAD


def test_models_and_data_that_a_run_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert network.loaded(LoadedPath("model.path", str(tmp_path / "model"), "model"), True).state is State.OK
    assert network.loaded(LoadedPath("task.path", str(tmp_path), "file"), True).found.endswith("is a folder")
    source = LoadedPath("task.path", "someone/data", "dataset")
    unavailable = "someone/data is not downloaded, and the hub is not available"
    assert network.loaded(source, False) == warn(unavailable, "task.path=/path/to/folder, or task=toy model=tiny")
    assert network.loaded(source, True) == bad(unavailable, "task.path=/path/to/folder, or task=toy model=tiny")
    (tmp_path / "datasets" / "someone___data").mkdir(parents=True)
    assert network.loaded(source, True).found == "someone/data (hub), downloaded already"
