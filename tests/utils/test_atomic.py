"""Atomic writes of files and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hydraprune.utils import atomic
from hydraprune.utils.atomic import atomic_write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("before")
    with atomic_write(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert names(tmp_path) == ["report"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("before")
    with atomic_write(path) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "new").write_text("after")
    assert names(tmp_path) == ["model"]
    assert names(path) == ["inner"]


def write_half(path: Path, folder: bool, error: BaseException) -> None:
    with atomic_write(path) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / "file" if folder else temporary).write_text("half")
        raise error


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()], ids=repr)
def test_a_failed_write_changes_nothing(error: BaseException, folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("before")
    with pytest.raises(type(error)):
        write_half(path, folder, error)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["report"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("kept")
    (tmp_path / "model").symlink_to(target)
    with atomic_write(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert not (tmp_path / "model").is_symlink()
    assert (target / "kept").read_text() == "kept"


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(OSError, match="model"), atomic_write(tmp_path / "model") as temporary:
        temporary.write_text("file")
    assert names(tmp_path) == ["model"]


def test_contents_are_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def traced_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr(atomic.os, "fsync", traced_fsync)
    monkeypatch.setattr(atomic.os, "replace", traced_replace)
    with atomic_write(tmp_path / "report") as temporary:
        temporary.write_text("text")
    assert events == [f"sync .report.{os.getpid()}.tmp", "rename", f"sync {tmp_path.name}"]
