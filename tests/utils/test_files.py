"""Reading of files that may be something else: pipes, devices, folders, and files that are too long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hydraprune.utils.files import read_bytes


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "link", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match=r"is no regular file|Is a directory"):
            read_bytes(place, 100)


def test_a_long_file_is_refused_or_its_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "file", 10) == b"0123456789"
    with pytest.raises(OSError, match="has 10 bytes, and at most 9 are read"):
        read_bytes(tmp_path / "file", 9)
    assert read_bytes(tmp_path / "file", 4, end=True) == b"6789"
