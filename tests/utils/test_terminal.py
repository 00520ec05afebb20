"""Output that cannot be written: a command goes on, and says what it lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hydraprune.utils.terminal import lasting_terminal, output_problem


def test_a_closed_pipe_raises_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with lasting_terminal():
            sys.stdout._number = write  # type: ignore[attr-defined] not the terminal of this test
            for _ in range(3):
                print("text")
            assert output_problem() is None
    assert sys.stdout is pipe


def test_no_terminal_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_terminal(), lasting_terminal():
        print("text")
        print("text", file=sys.stderr)
        assert not sys.stdout.isatty()


# What is typed after a command -> its exit code and number of lines on standard error.
ENDS = {
    "| true": (0, 0),
    ">&-": (0, 0),
    "2>&-": (0, 0),
    ">&- 2>&-": (0, 0),
    "> /dev/full": (1, 1),
    "2> /dev/full": (0, 0),
    "> /dev/full 2> /dev/full": (1, 0),
}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="has no full device")
@pytest.mark.parametrize("end", ENDS)
def test_a_command_without_a_place_for_its_output(end: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m hydraprune.cli report {tmp_path} {end}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == ENDS[end], done.stderr
    assert (tmp_path / "matrix.md").is_file()
