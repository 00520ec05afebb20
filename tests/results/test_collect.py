"""Reports and plans collected from folders, and the files of `hydraprune report`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results_helpers import job, report, table
from saved_run_helpers import write_whole_model
from spec_helpers import planned_of

from hydraprune.errors import UserError
from hydraprune.results.collect import FILES, gather, write_matrix
from hydraprune.results.plan_file import Plan, read_plan, write_plan
from hydraprune.results.report import RunReport, write_report
from hydraprune.utils.files import folders_with


def keep(found: RunReport, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    write_report(found, directory)
    return directory


def kept(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """A sweep's folder: seed 0 finished, 1 failed, 2 interrupted, 3 refused, 4 not started; a dense run elsewhere."""
    folder = tmp_path / "multirun_sweeps" / "default"
    keep(report(0), folder / "runs" / "0")
    keep(report(1, status="failed", error="not finite"), folder / "runs" / "1")
    keep(report(2, status="started"), folder / "runs" / "2")
    keep(report(3, status="failed", error="7x1 does not fit"), folder / "refused" / "3")
    dense = report(0, cell="d" * 12, phase="dense", pattern="dense", target_sparsity=None)
    keep(dense, tmp_path / "outputs" / "dense")
    jobs = [job(seed, folder / "runs" / str(seed)) for seed in range(5)]
    jobs[3] = replace(jobs[3], refused="7x1 does not fit", refusal=folder / "refused" / "3")
    jobs.append(job(0, tmp_path / "outputs" / "dense", cell="d" * 12, phase="dense", pattern="dense"))
    write_plan(Plan(("seed=0,1,2,3,4",), 2, tuple(jobs), ()), folder)
    return folder


def test_the_cells_and_failures_of_a_sweep(swept: Path) -> None:
    found = gather([swept])
    dense, sparse = found.cells
    assert (sparse.finished, sparse.failed, sparse.missing) == ((0,), (1, 3), (2, 4))
    assert (dense.spec.phase, dense.finished) == ("dense", (0,))
    assert found.failures == sorted(
        {
            str(swept / "runs" / "1"): "not finite",
            str(swept / "runs" / "2"): "it was interrupted: its process ended before the run did",
            str(swept / "runs" / "3"): "7x1 does not fit",
            str(swept / "runs" / "4"): "it did not start",
        }.items()
    )


def test_equal_reports_give_equal_bytes(swept: Path, tmp_path: Path) -> None:
    write_matrix(gather([swept]), swept)
    first = kept(swept)
    write_matrix(gather([swept]), swept)
    assert kept(swept) == first
    # The matrix files are not reports; overlapping folders change nothing.
    write_matrix(gather([swept, swept / "runs", swept]), tmp_path / "more")
    assert kept(tmp_path / "more") == first
    json.loads(first["matrix.json"])


@pytest.mark.parametrize("other", ["multirun_sweeps/../multirun_sweeps/default", "link"])
def test_other_paths_of_the_same_folder(
    other: str, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(swept)
    assert gather([Path(other)]).cells == gather([swept]).cells
    assert len(gather([Path(other)]).failures) == len(gather([swept]).failures)
    assert len(gather([Path(other), swept]).failures) == len(gather([swept]).failures)


def test_a_moved_sweep(swept: Path, tmp_path: Path) -> None:
    """Its runs move with it; the dense run is found at the same relative path."""
    before = gather([swept])
    (tmp_path / "moved").mkdir()
    for name in ("multirun_sweeps", "outputs"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert gather([tmp_path / "moved" / "multirun_sweeps" / "default"]).cells == before.cells


def test_foreign_reports_are_skipped(swept: Path) -> None:
    before = gather([swept])
    for number, text in enumerate(['{"name": "a linter\'s"}', '{"status": "finished"}', '{"model": {"path": "x"}}']):
        (swept / "foreign" / str(number)).mkdir(parents=True)
        (swept / "foreign" / str(number) / "report.json").write_text(text)
    (swept / "foreign" / "report.json").mkdir()
    assert gather([swept]).cells == before.cells
    assert gather([swept]).failures == before.failures


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"null", b"\xff\xfe\x00", b"[" * 5000, b'{"a": 1e999}'])
def test_a_damaged_report_is_named_beside_the_others(content: bytes, swept: Path) -> None:
    before = gather([swept])
    (swept / "odd").mkdir()
    (swept / "odd" / "report.json").write_bytes(content)
    found = gather([swept])
    assert found.cells == before.cells
    ((file, why),) = set(found.failures) - set(before.failures)
    assert file == str(swept / "odd" / "report.json")
    assert why.startswith("cannot be read (")
    assert "\n" not in why


@pytest.mark.parametrize("text", ["", "{", "[]", '{"jobs": 5}', '{"jobs": [{}], "ancestors": []}'])
def test_a_damaged_plan_is_named_and_the_runs_are_shown(text: str, swept: Path) -> None:
    (swept / "plan.json").write_text(text)
    assert read_plan(swept) is None
    assert str(swept / "plan.json") in dict(gather([swept]).failures)
    (cell,) = gather([swept]).cells
    assert (cell.finished, cell.failed, cell.missing) == ((0,), (1, 3), (2,))


def test_refusals_that_the_plan_does_not_name_are_stale(swept: Path) -> None:
    before = gather([swept])
    keep(report(9, cell="f" * 12, status="failed", error="long ago"), swept / "refused" / "9")
    assert gather([swept]).cells == before.cells
    assert gather([swept]).failures == before.failures
    # Without a plan they cannot be recognized.
    (swept / "plan.json").unlink()
    assert {cell.spec.cell for cell in gather([swept]).cells} == {"c" * 12, "f" * 12}


def test_a_run_outside_the_plan_counts_too(swept: Path) -> None:
    keep(report(7), swept / "runs" / "by hand")
    keep(report(8, status="started"), swept / "runs" / "interrupted")
    found = gather([swept])
    assert found.cells[1].finished == (0, 7)
    assert (str(swept / "runs" / "interrupted"), "not finished: running, or interrupted") in found.failures


def test_report_from_the_command_line(hydraprune: Callable[..., Any], swept: Path, tmp_path: Path) -> None:
    finished = hydraprune("report", "multirun_sweeps/default")
    assert finished.code == 0, finished.err
    assert finished.out == (swept / "matrix.md").read_text()
    (row,) = table(finished.out, "Results")
    assert row["n"] == "**1 of 5** (failed 1 3, missing 2 4)"
    first = kept(swept)
    assert hydraprune("report", "multirun_sweeps/default").out == finished.out
    assert kept(swept) == first


def test_report_writes_to_another_folder(hydraprune: Callable[..., Any], swept: Path, tmp_path: Path) -> None:
    before = set(swept.rglob("*"))
    assert hydraprune("report", str(swept), str(tmp_path / "outputs"), "--out", "new/place").code == 0
    assert {path.name for path in (tmp_path / "new" / "place").iterdir()} == set(FILES)
    assert set(swept.rglob("*")) == before
    (tmp_path / "file").write_text("")
    refused = hydraprune("report", str(swept), "--out", "file")
    assert refused.code == 2
    assert refused.err.startswith("hydraprune: error: file: cannot write matrix.md there")


def test_a_missing_folder_is_refused(hydraprune: Callable[..., Any], swept: Path) -> None:
    for missing in ("no/such", str(swept / "plan.json")):
        refused = hydraprune("report", str(swept), missing)
        assert refused.code == 2
        assert refused.err.startswith(f"hydraprune: error: {missing}: no such folder")
        assert refused.err.count("\n") == 1
        assert refused.out == ""
    with pytest.raises(UserError, match="no such folder"):
        gather([Path("no/such")])


def test_an_empty_folder(hydraprune: Callable[..., Any], workplace: Path) -> None:
    finished = hydraprune("report", ".")
    assert finished.code == 0, finished.err
    assert "No runs here yet" in finished.out


def test_a_plan_round_trips(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "sweep"
    full = planned_of(
        hash="h", cell="c", phase="sparse", model="m", task="t", pattern="2:4", target_sparsity=0.5, seed=3,
        precision="bf16", directory=folder / "t" / "m", words=("seed=3", "task=t"), steps=10, model_bytes=1,
        answer_bytes=2, token_bytes=3, ancestor="d", refused="why", refusal=folder / "refused" / "x",
    )  # fmt: skip
    elsewhere = job(0, tmp_path / "outputs" / "dense", target_sparsity=None)
    plan = Plan(("seed=3", "task=t"), 2, (full, job(1, folder / "one")), (elsewhere,))
    write_plan(plan, folder)
    assert read_plan(folder) == plan
    assert read_plan(tmp_path) is None
    first = (folder / "plan.json").read_bytes()
    write_plan(plan, folder)
    assert (folder / "plan.json").read_bytes() == first
    assert [path.name for path in folder.iterdir()] == ["plan.json"]

    (tmp_path / "b").mkdir()
    os.rename(folder, tmp_path / "b" / "other")
    moved = read_plan(tmp_path / "b" / "other")
    assert moved is not None
    assert moved.jobs[0].directory == tmp_path / "b" / "other" / "t" / "m"
    assert moved.jobs[0].refusal == tmp_path / "b" / "other" / "refused" / "x"
    assert moved.ancestors[0].directory == tmp_path / "outputs" / "dense"


def test_why_a_job_is_not_finished(tmp_path: Path) -> None:
    wanted = job(0, tmp_path / "run", refusal=tmp_path / "refused")
    assert wanted.failure() == "it did not start"
    assert replace(wanted, refused="no such key").failure() == "no such key"
    keep(report(0, status="failed", error="7x1 does not fit"), tmp_path / "refused")
    assert wanted.failure() == "7x1 does not fit"
    keep(report(0, status="started"), tmp_path / "run")
    assert wanted.failure() == "it was interrupted: its process ended before the run did"
    keep(report(0, status="failed", error="not finite"), tmp_path / "run")
    assert wanted.failure() == "not finite"
    keep(report(0), tmp_path / "run")
    assert wanted.failure() == "its report says finished, but model/config.json is missing or incomplete"
    assert wanted.finished() is None
    write_whole_model(tmp_path / "run" / "model")
    assert wanted.failure() is None
    assert wanted.finished() == report(0)
    os.truncate(tmp_path / "run" / "model" / "model.safetensors", 80)
    assert wanted.failure() == "its report says finished, but model/model.safetensors is missing or incomplete"
    (tmp_path / "run" / "report.json").write_text("{")
    assert "its report cannot be read" in (wanted.failure() or "")
    # The report of another run in its folder does not count.
    keep(report(5), tmp_path / "run")
    assert wanted.finished() is None


def test_a_folder_that_disappears_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs may remove their checkpoints while the folders are read."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}")
    (tmp_path / "a" / "gone").mkdir()
    real = os.scandir

    def vanishing(path: Any) -> Any:
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert folders_with("report.json", tmp_path) == [tmp_path / "a", tmp_path / "b"]
