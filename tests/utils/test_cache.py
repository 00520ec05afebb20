"""The cache: files are computed once and written whole, its size stays limited, other files are left alone."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydraprune.errors import UserError
from hydraprune.utils.cache import Cache, cache_of, digest

GB = 1e9
# Named like the files of the cache.
ONE, TWO, THREE, A, B, C, D = (f"{number:032x}.npy" for number in range(7))


def writer(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def reader(path: Path) -> bytes:
    content = path.read_bytes()
    if content.startswith(b"broken"):
        raise ValueError("it is broken")
    return content


def put(cache: Cache, key: str, content: bytes = b"x", kind: str = "answers") -> bytes:
    return cache.fetch(kind, key, len(content), writer(content), reader)


def fail(path: Path) -> None:
    raise AssertionError(f"{path} is written again")


def names(folder: Path) -> set[str]:
    """All files below `folder` except locks, which are empty and stay, and checksums."""
    others = (".lock", ".sha256")
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix not in others}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 1.0)


# Making -------------------------------------------------------------------------------------------


def test_a_file_is_computed_once(cache: Cache) -> None:
    assert put(cache, ONE, b"first") == b"first"
    assert cache.fetch("answers", ONE, 5, fail, reader) == b"first"
    assert Cache(cache.folder, 0.5).fetch("answers", ONE, 5, fail, reader) == b"first"
    assert names(cache.folder) == {f"answers/{ONE}"}


def test_kinds_have_separate_files(cache: Cache) -> None:
    put(cache, ONE, b"first")
    assert put(cache, ONE, b"second", "tokens") == b"second"
    assert names(cache.folder) == {f"answers/{ONE}", f"tokens/{ONE}"}


def test_an_unreadable_file_is_computed_again(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    put(cache, ONE, b"whole")
    (cache.folder / "answers" / ONE).write_bytes(b"broken")
    assert put(cache, ONE, b"whole") == b"whole"
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "it is broken" in record.getMessage()
    assert ONE in record.getMessage()
    assert reader(cache.folder / "answers" / ONE) == b"whole"


# How a file may be damaged: flipped bits, zeros, a cut, more bytes.
DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "a bit": lambda data, at: data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :],
    "zeros": lambda data, at: data[:at] + bytes(len(data) - at),
    "cut": lambda data, at: data[:at],
    "longer": lambda data, at: data + data[at:],
    "two bytes swapped": lambda data, at: data[:at] + data[at : at + 2][::-1] + data[at + 2 :],
}


@settings(max_examples=50)
@given(st.sampled_from(sorted(DAMAGE)), st.binary(min_size=20, max_size=200), st.integers(0, 18))
def test_a_damaged_file_is_computed_again(
    tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes, at: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("damaged"), 1.0)
    content = b"whole" + content  # not what the reader itself refuses
    put(cache, ONE, content)
    file = cache.folder / "answers" / ONE
    file.write_bytes(DAMAGE[kind](content, 5 + at))
    for _ in range(2):
        assert put(cache, ONE, content) == content
    assert file.read_bytes() == content


def test_a_file_without_its_checksum_is_computed_again(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """As one that an earlier version has stored, or that a kill left behind."""
    put(cache, ONE, b"old")
    for checksum in (cache.folder / "answers").glob("*.sha256"):
        checksum.unlink()
    assert put(cache, ONE, b"new") == b"new"
    assert "it has no checksum" in caplog.text
    cache.clean()
    assert not [file for file in (cache.folder / "answers").iterdir() if file.suffix != ".lock"]


def half(error: BaseException) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    return write


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_an_interrupted_writer_leaves_no_file(error: BaseException, cache: Cache) -> None:
    with pytest.raises(type(error)):
        cache.fetch("answers", ONE, 4, half(error), reader)
    assert names(cache.folder) == set()
    assert put(cache, ONE, b"whole") == b"whole"


def test_a_full_disk_is_an_error_that_names_the_folder(cache: Cache) -> None:
    with pytest.raises(UserError, match=r"cache\.dir=.*No space left") as error:
        cache.fetch("answers", ONE, 4, half(OSError(28, "No space left on device")), reader)
    assert str(cache.folder) in str(error.value)
    assert names(cache.folder) == set()


def test_an_impossible_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cache = Cache(tmp_path / "file" / "cache", 1.0)
    with pytest.raises(UserError, match=r"cache\.dir=") as error:
        put(cache, ONE)
    assert str(cache.folder) in str(error.value)
    # Reading operations treat it as empty.
    assert (cache.files(), cache.size(), cache.clean()) == ([], 0, 0)


def test_concurrent_threads_compute_a_file_once(cache: Cache) -> None:
    made: list[int] = []
    ready = threading.Barrier(4)

    def slow(path: Path) -> None:
        made.append(1)
        time.sleep(0.05)
        path.write_bytes(b"whole")

    found: list[bytes] = []

    def fetch() -> None:
        ready.wait()
        found.append(Cache(cache.folder, 1.0).fetch("answers", ONE, 5, slow, reader))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert (len(made), found) == (1, [b"whole"] * 4)


# Killed writers -----------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
from hydraprune.utils.cache import Cache

def write(path):
    path.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)

Cache(Path(sys.argv[1]), 1.0).fetch("answers", sys.argv[2], 4, write, Path.read_bytes)
"""


@pytest.fixture
def killed(cache: Cache) -> Cache:
    """A cache in which a process was killed while it wrote `answers/one`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(cache.folder), ONE], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "writing\n"
        # The temporary file of a live process is left alone.
        assert cache.clean() == 0
        assert len(names(cache.folder)) == 1
        process.send_signal(signal.SIGKILL)
    assert len(names(cache.folder)) == 1
    assert cache.files() == []
    return cache


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_the_next_writer_replaces_the_file_of_a_killed_one(killed: Cache) -> None:
    assert put(killed, ONE, b"whole") == b"whole"
    assert names(killed.folder) == {f"answers/{ONE}"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_cleaning_removes_the_file_of_a_killed_writer(killed: Cache) -> None:
    put(killed, TWO)
    assert len(names(killed.folder)) == 2
    assert killed.clean() == len(b"half") + len(b"x")
    assert names(killed.folder) == set()


# Room ---------------------------------------------------------------------------------------------


def aged(cache: Cache, *keys: str) -> None:
    """Mark these as used in this order, long ago."""
    for index, key in enumerate(keys):
        (file,) = [file for file in cache.files() if file.name == key]
        os.utime(file, (1000 + index, 1000 + index))


def test_the_least_recently_used_file_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10 / GB)
    for key, kind in ((A, "tokens"), (B, "answers"), (C, "native")):
        put(cache, key, b"123", kind)
    aged(cache, B, C, A)
    assert [file.name for file in cache.files()] == [B, C, A]
    # Reading counts as use.
    cache.fetch("answers", B, 3, fail, reader)
    put(cache, D, b"12345")
    assert {file.name for file in cache.files()} == {B, D}
    assert cache.size() == 8


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 12)), max_size=12), st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_the_cache_never_exceeds_its_limit(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[str, int]], limit: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), limit / GB)
    for key, size in wanted:
        if cache.admits(size):
            name = f"{digest([key.encode(), bytes(size)])}.npy"
            put(cache, name, b"x" * size)
            assert cache.folder.joinpath("answers", name).stat().st_size == size
            assert cache.size() <= limit


def test_the_cache_admits_what_fits_into_an_empty_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1e-6)
    put(cache, ONE, b"x" * 900)
    assert cache.admits(1000)
    assert not cache.admits(1001)
    assert Cache(tmp_path, 0.0).admits(0)
    assert not Cache(tmp_path, 0.0).admits(1)


# Cleaning -----------------------------------------------------------------------------------------


def test_other_files_are_never_touched(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1.0)
    for kind in ("answers", "tokens", "native"):
        put(cache, ONE, b"123", kind)
    other = ("notes.txt", "mine/answers", "mine/one.npy", "answers2/one", "native.so", ".hidden", "answers/.mine")
    other = (*other, "answers/deeper/one", "tokens.tmp", ".one.1.tmp")
    for name in other:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    assert cache.size() == 9
    assert cache.clean() == 9
    assert names(tmp_path) == set(other)
    # Not even to make room.
    full = Cache(tmp_path, 8 / GB)
    put(full, TWO, b"12345")
    put(full, THREE, b"12345")
    assert names(tmp_path) == {*other, f"answers/{THREE}"}


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "nowhere", 1.0)
    assert (cache.files(), cache.size(), cache.clean()) == ([], 0, 0)
    assert not cache.folder.exists()


# Keys ---------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
@settings(deadline=None, max_examples=200)
def test_different_parts_have_different_digests(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(one) == digest(other)) == (one == other)


def test_a_digest_depends_on_the_boundaries_of_parts() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b"ab"]) != digest([b"ab", b""])
    assert digest([memoryview(b"ab")]) == digest([b"ab"])
    assert digest([memoryview(b"abcd").cast("H")]) == digest([b"abcd"])


def test_a_config_node_becomes_a_cache() -> None:
    cache = cache_of({"dir": "~/kept", "max_gb": 3})
    assert cache == Cache(Path.home() / "kept", 3.0)


# The command line ---------------------------------------------------------------------------------


def test_the_cache_command_lists_and_cleans(hydraprune: Callable[..., Any], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept", 1.0)
    put(cache, ONE, b"x" * 3_000_000)
    put(cache, TWO, b"x" * 2_000_000, "tokens")
    shown = hydraprune("cache", f"cache.dir={cache.folder}", "cache.max_gb=7")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["answers", "1"], ["tokens", "1"], ["native", "0"]]
    assert "0.003 GB" in lines[0]
    assert f"in {cache.folder}, at most 7 GB" in lines[3]
    assert len(cache.files()) == 2
    (cache.folder / "mine").write_text("precious")
    cleaned = hydraprune("cache", "--clean", f"cache.dir={cache.folder}")
    assert cleaned.code == 0, cleaned.err
    assert "removed 0.005 GB" in cleaned.out
    assert names(cache.folder) == {"mine"}


WORDS = ("cache.dirs=x", "cache.max_gb=-1", "cache.max_gb=much", "cache.max_gb=null", "cache.dir=null", "cache.dir=5")


@pytest.mark.parametrize("word", WORDS)
def test_an_invalid_cache_key_is_refused_in_one_line(
    word: str, hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    for command in (("cache",), ("train", *small)):
        finished = hydraprune(*command, word)
        assert finished.code == 2, finished.err
        assert finished.err.count("\n") == 1
        assert word in finished.err
        assert list(workplace.iterdir()) == []
