"""Tracebacks of user errors are shown only on request, before the one-line message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hydraprune.cli import main

# Refused without a model or data being read.
WORDS = ("model=tiny", "task=toy", "training.epochs=many")
LINE = "hydraprune: error: training.epochs=many: must be a whole number"


def refused(
    switches: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    for name in ("HYDRAPRUNE_TRACEBACK", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it: the program sets it
        monkeypatch.delenv(name)
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["hydraprune", "train", *WORDS])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), capfd.readouterr().err.splitlines()


@pytest.mark.parametrize("switches", [{}, {"HYDRAPRUNE_TRACEBACK": "0"}, {"HYDRA_FULL_ERROR": "0"}], ids=str)
def test_a_user_error_shows_no_traceback(
    switches: dict[str, str], workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert refused(switches, monkeypatch, capfd) == (2, [LINE])
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("switch", ["HYDRAPRUNE_TRACEBACK", "HYDRA_FULL_ERROR"])
def test_the_traceback_is_shown_before_the_line_on_request(
    switch: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, lines = refused({switch: "1"}, monkeypatch, capfd)
    assert (code, lines[-1]) == (2, LINE)
    assert "Traceback (most recent call last):" in lines
    assert any("in check_arguments" in line for line in lines)
    assert list(workplace.iterdir()) == []
