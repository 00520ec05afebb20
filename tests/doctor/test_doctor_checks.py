"""What the doctor looks at, one by one: folders, locks, room, compiler, cores, versions, accelerators."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from hydraprune.doctor import hardware as machinery
from hydraprune.doctor import network, software, storage
from hydraprune.doctor.render import screen
from hydraprune.doctor.result import Finding, State, bad, ok, warn
from hydraprune.doctor.run_config import Named
from hydraprune.doctor.runner import Check, look, redacted

GB = 10**9


def fails(error: Exception) -> Any:
    def call(*_: object, **__: object) -> NoReturn:
        raise error

    return call


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that must be empty again."""
    place = tmp_path / "disk"
    place.mkdir()
    return place


def test_a_check_that_fails_or_hangs_is_a_line_and_stops_no_other() -> None:
    found = look(
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
    assert found[1].found == "not looked at (no torch)"
    assert "TimeoutError: theirs" in found[3].found
    assert found[4].found == "no answer within 0.05 s"


def test_secrets_and_users_of_addresses_are_taken_out() -> None:
    environ = {"HF_TOKEN": "hf_abcdef", "WANDB_API_KEY": "hf_abcdefgh", "SHELL": "/bin/bash", "USE_KEYS": "1"}
    text = "hf_abcdef hf_abcdefgh /bin/bash 1 https://me:pw@host/x"
    assert redacted(text, environ) == "*** *** /bin/bash 1 https://***@host/x"


@pytest.mark.parametrize("width", [80, 100])
def test_a_screen_breaks_lines_and_keeps_every_word(width: int) -> None:
    found = Finding(State.BAD, " ".join(["word"] * 60), "do this " * 20, "name")
    lines = [line.plain for line in screen([found, Finding(State.OK, "well", name="other")], width)]
    assert max(map(len, lines)) <= width
    assert " ".join(lines).count("word") == 60
    assert lines[-1] == "A run does not work here: 1 to mend"
    assert len(screen([found], None)) == 3


def test_a_folder_that_can_be_used(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "ext4")
    found = storage.folder("run.root", disk / "a" / "b")
    assert found.state is not State.BAD
    assert f"{disk / 'a' / 'b'} (not there yet), writes, locks, " in found.found
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("os.fsync", OSError(errno.ENOSPC, "No space left on device"), "cannot write (No space left on device)"),
        ("tempfile.mkdtemp", OSError(errno.EROFS, "Read-only file system"), "cannot write (Read-only file system)"),
        ("fcntl.flock", OSError(errno.ENOLCK, "No locks available"), "cannot lock files (No locks available)"),
    ],
)
def test_a_folder_that_cannot_be_used(
    disk: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, said: str
) -> None:
    monkeypatch.setattr(call, fails(error))
    found = storage.folder("run.root", disk)
    assert found.state is State.BAD
    assert said in found.found
    assert "run.root=/path" in found.todo
    assert storage.folder("HF_HOME", disk, needed=False).state is State.WARN
    assert list(disk.iterdir()) == []


def test_locks_that_keep_nobody_out(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert f"{free / GB:.1f} GB free" in found.found
    assert ("another disk: run.root=/path" in found.todo) == (state is not State.OK)


def test_room_for_files(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=100, f_favail=0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500 * GB))
    found = storage.folder("run.root", disk)
    assert found.state is State.BAD
    assert "room for 0 files" in found.found


def test_a_cache_that_will_outgrow_its_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "ext4")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * GB))
    (disk / "tokens").mkdir()
    (disk / "tokens" / f"{'0' * 32}.npy").write_bytes(bytes(10**8))
    assert "keeps 0.1 of at most 8 GB" in storage.cached(disk, 8.0).found
    found = storage.cached(disk, 20.0)
    assert (found.state, found.todo) == (State.WARN, "cache.max_gb=5")
    assert "keeps 0.1 GB and may grow by 19.9" in found.found
    monkeypatch.setattr(os, "fsync", fails(OSError(errno.EROFS, "Read-only file system")))
    assert storage.cached(disk, 20.0).state is State.BAD
    assert storage.cached(disk, 0.0).state is State.WARN


def test_what_a_folder_is_on(tmp_path: Path) -> None:
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


def test_the_kind_of_file_system_is_said(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "nfs4")
    assert "nfs4, locks tried from this machine only" in storage.folder("run.root", disk).found
    monkeypatch.setattr(storage, "file_system", lambda _: "tmpfs")
    assert "gone with the next start" in storage.folder("run.root", disk).found


def test_a_compiler_that_is_there(disk: Path) -> None:
    found = machinery.compiler(disk / "cache", True)
    assert (found.state, found.todo) == (State.OK, "")
    assert found.found.endswith("compiles the pruning kernel")
    assert list(disk.iterdir()) == []
    (disk / "native").mkdir()
    (disk / "native").chmod(0o777)
    assert "others may write" in machinery.compiler(disk, True).found


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "no C compiler on PATH"),
        ("echo 'products.c:1: fatal error: math.h: No such file' >&2; exit 1", "math.h: No such file"),
        ("exec sleep 30", "takes more than"),
        ("for last; do :; done; while [ $# -gt 0 ]; do [ $1 = -o ] && echo junk >$2; shift; done", "invalid ELF"),
    ],
)
def test_a_compiler_that_does_not_work(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    monkeypatch.setattr(machinery, "_COMPILING", 0.5)
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "sleep"):
        (programs / program).symlink_to(str(shutil.which(program)))
    if script is not None:
        (programs / "cc").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    found = machinery.compiler(disk, True)
    assert found.state is State.WARN
    assert found.todo
    assert said in found.found or (said == "invalid ELF" and "file too short" in found.found)
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("used", "jobs", "todo"),
    [(4, 1, ""), (2, 2, ""), (5, 1, "runtime.threads=4;"), (2, 3, "runtime.threads=1;"), (1, 9, "n_jobs=4")],
)
def test_threads_against_cores(used: int, jobs: int, todo: str) -> None:
    found = machinery.threads(used, 4, jobs, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "active"})
    assert "OMP_NUM_THREADS=2" in found.found
    assert (found.state is State.OK) == (todo == "")
    assert todo in found.todo
    assert ("unset OMP_WAIT_POLICY" in found.todo) == (todo != "")


def test_the_limits_of_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {10**9} kB\nMemAvailable: {10**9} kB\n")
    whole = machinery.cores(tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machinery.cores(tmp_path) == whole
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machinery.cores(tmp_path) == 1
    assert machinery.memory(meminfo, tmp_path).state is State.OK
    (tmp_path / "memory.max").write_text(str(3 * GB))
    (tmp_path / "memory.current").write_text(str(2 * GB))
    (tmp_path / "memory.stat").write_text(f"anon {2 * GB}\n")
    found = machinery.memory(meminfo, tmp_path)
    assert (found.state, found.found) == (State.WARN, "1.0 of 3.0 GB free")
    (tmp_path / "memory.stat").write_text(f"anon {GB}\ninactive_file {GB // 4}\nactive_file {GB // 4}\n")
    assert machinery.memory(meminfo, tmp_path).found == "1.5 of 3.0 GB free"


def test_packages_outside_their_ranges() -> None:
    asked = ["torch<2.14,>=2.6", "datasets>=4", "wandb>=0.31", "evaluate", 'pytest>=8; extra == "test"']
    well = {"torch": "2.13.0+cpu", "datasets": "5.2.0", "wandb": "0.31.0", "evaluate": "1"}
    assert software.packages(asked, well.get) == ok("torch 2.13.0+cpu, datasets 5.2.0, wandb 0.31.0")
    newer = software.packages(asked, {**well, "torch": "2.14.1"}.get)
    assert newer.state is State.WARN
    assert "torch 2.14.1 is newer than what was tested (<2.14,>=2.6)" in newer.found
    older = software.packages(asked, {**well, "torch": "2.5.1", "wandb": "0.1"}.get)
    assert (older.state, older.todo) == (State.BAD, "pip install 'torch<2.14,>=2.6' 'wandb>=0.31'")
    without = software.packages(asked, {"torch": "2.6.0", "datasets": "4.0", "evaluate": "1"}.get)
    assert (without.state, without.todo) == (State.WARN, "pip install 'wandb>=0.31'")
    assert software.packages(asked, {**well, "datasets": None}.get).state is State.BAD


def test_launchers_that_are_there() -> None:
    found = software.launchers("basic", {"hydra-joblib-launcher": "1.2", "hydra-ray-launcher": "1.2"}.get)
    assert found.found.startswith("basic (one job at a time), joblib; not installed: submitit")
    assert (found.state, "ray cannot be imported" in found.found) == (State.WARN, True)
    assert software.launchers("ray", {"hydra-ray-launcher": "1.2"}.get).state is State.BAD


def torch_with(cards: int, built: str | None, said: str = "") -> Any:
    def available() -> bool:
        if said:
            warnings.warn(said, stacklevel=1)
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
    assert machinery.devices(torch_with(0, None), "auto").found.startswith("CPU only")
    two = machinery.devices(torch_with(2, "12.6"), "cuda")
    assert two == ok("cuda:0 H100-0 (70 of 80 GB free), cuda:1 H100-1 (none of 80 GB free)")
    hidden = machinery.devices(torch_with(0, "12.6", "CUDA initialization: driver too old (Triggered at x)"), "auto")
    assert hidden.state is State.WARN
    assert "torch is built for CUDA 12.6 and finds no device (CUDA initialization: driver too old)" in hidden.found
    assert "nvidia-smi" in hidden.todo
    assert machinery.devices(torch_with(0, "12.6"), "cuda").state is State.BAD


def test_paths_that_a_run_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert network.named(Named("model.path", str(tmp_path / "model"), "model"), True).state is State.OK
    assert network.named(Named("task.path", str(tmp_path), "file"), True).found.endswith("is a folder")
    asked = Named("task.path", "someone/data", "data")
    away = "someone/data is not downloaded, and the hub is not to be had"
    assert network.named(asked, False) == warn(away, "task.path=/path/to/folder, or task=toy model=tiny")
    assert network.named(asked, True) == bad(away, "task.path=/path/to/folder, or task=toy model=tiny")
    (tmp_path / "datasets" / "someone___data").mkdir(parents=True)
    assert network.named(asked, True).found == "someone/data (hub), downloaded already"
