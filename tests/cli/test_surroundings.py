"""Odd surroundings of a command: environment, folders and disks. One line, or the right result."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydraprune.launch import _multirun_job
from hydraprune.results import collect
from hydraprune.utils.atomic import atomic_write

RUN = ("model=tiny", "task=toy", "task.train_examples=64", "task.evaluation_examples=32", "training.epochs=1")
DENSE = (*RUN, "pattern=dense")


def assert_one_line(finished: Any, *parts: str) -> None:
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    for part in parts:
        assert part in finished.err


@pytest.mark.parametrize("size", ["x", "-1", "1.5"])
def test_a_number_of_processes_that_is_none(
    size: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    assert_one_line(train(*DENSE, "plan=true"), f"WORLD_SIZE={size}")
    monkeypatch.setenv("WORLD_SIZE", "")
    assert train(*DENSE, "plan=true").code == 0


@pytest.mark.parametrize("endpoint", ["http://[broken", "https://host:port", "http://host:99999999"])
def test_a_hub_address_that_is_none(endpoint: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    for name in ("HF_HUB_OFFLINE", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert_one_line(train("model=bert_mini", "task=toy", "pattern=dense"), f"HF_ENDPOINT={endpoint}")


@pytest.mark.parametrize("name", ["a[b]", "a$b", "a{b}", "a b", "ä=1", "a%s", "~a", "a,b", "#a"])
def test_odd_names_of_the_current_folder(name: str, train: Callable[..., Any], workplace: Path) -> None:
    (workplace / name).mkdir()
    os.chdir(workplace / name)
    for end in ("step", "Finished already"):
        finished = train(*DENSE)
        assert finished.code == 0, finished.err
        assert end in finished.out
    assert [path.name for path in Path().iterdir()] == ["outputs"]


@pytest.mark.parametrize("name", ["a${b}", "a${b", "${oc.env:HOME}"])
def test_a_current_folder_that_hydra_cannot_name(name: str, train: Callable[..., Any], workplace: Path) -> None:
    (workplace / name).mkdir()
    os.chdir(workplace / name)
    assert_one_line(train(*DENSE), name, "cd to another")
    assert list(Path().iterdir()) == []


def test_a_current_folder_that_is_gone(train: Callable[..., Any], workplace: Path) -> None:
    (workplace / "gone").mkdir()
    os.chdir(workplace / "gone")
    (workplace / "gone").rmdir()
    try:
        assert_one_line(train(*DENSE), "the current folder: is gone")
    finally:
        os.chdir(workplace)


@pytest.mark.parametrize("mode", [(), ("-m",)], ids=["run", "sweep"])
def test_relative_paths_with_chdir(mode: tuple[str, ...], train: Callable[..., Any], workplace: Path) -> None:
    rows = [json.dumps({"text": f"word {i}", "label": i % 2}) for i in range(40)]
    (workplace / "data").mkdir()
    (workplace / "data" / "train.jsonl").write_text("\n".join(rows))
    words = (*mode, "model=tiny", "task=file", "task.path=data/train.jsonl", "training.epochs=1", "pattern=dense")
    finished = train(*words, "hydra.job.chdir=true")
    assert finished.code == 0, finished.err
    (report,) = workplace.rglob("report.json")
    assert report.is_relative_to(workplace / "outputs")
    assert json.loads(report.read_text())["status"] == "finished"
    assert {path.name for path in report.parent.iterdir()} >= {"model", "metrics.jsonl", ".hydra"}
    assert Path.cwd() == workplace


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/none/x", "file/x"])
def test_a_sweep_in_a_folder_that_cannot_be_written(place: str, train: Callable[..., Any], workplace: Path) -> None:
    (workplace / "file").touch()
    assert_one_line(train("-m", *DENSE, "seed=0,1", f"hydra.sweep.dir={place}"), "hydra.sweep.dir", "cannot write")
    assert [path.name for path in workplace.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["multirun.yaml", "plan.json"])
def test_a_disk_that_is_full_when_a_sweep_starts(
    name: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    finished = train("-m", *DENSE, "seed=0,1")
    assert_one_line(finished, f"{name} cannot be written (No space left on device)")
    assert not (workplace / "outputs").exists()


def test_failed_jobs_are_listed_when_the_table_cannot_be_written(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(collect, "write_text", full)
    finished = train("-m", *DENSE, "seed=0,-1")
    assert finished.code == 1
    assert "Traceback" not in finished.err
    assert re.search(r"hydraprune: failed: \S*: seed=-1: must be at least 0", finished.err)
    assert "cannot write matrix.md there (Read-only file system)" in finished.err
    assert "# Results" in finished.out


def test_a_page_is_written_to_a_file_only(hydraprune: Callable[..., Any], workplace: Path) -> None:
    (workplace / "runs").mkdir()
    assert_one_line(hydraprune("dashboard", "runs", "--out", "."), "--out .: is a folder", "dashboard.html")
    os.mkfifo("pipe")
    assert_one_line(hydraprune("dashboard", "runs", "--out", "pipe"), "is a device or a pipe")
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="is a "), atomic_write(tmp_path / name) as temporary:
            temporary.write_text("text")
    assert {path.name for path in tmp_path.rglob("*")} == {"pipe", "folder", "file"}


def test_a_failed_job_of_a_search_has_no_value(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's sweeper goes on after a trial that returns None; NaN ends it."""
    returned = []

    def kept(*arguments: Any) -> Any:
        returned.append(_multirun_job(*arguments))
        return returned[-1]

    monkeypatch.setattr("hydraprune.launch._multirun_job", kept)
    finished = train("-m", "hydra/sweeper=basic", *DENSE, "seed=0,-1", "optimizer.lr=1e-3,1e30")
    assert finished.code == 1
    assert len(returned) == 4
    assert sum(value is None for value in returned) >= 2
    assert all(value is None or 0 <= value <= 1 for value in returned)
