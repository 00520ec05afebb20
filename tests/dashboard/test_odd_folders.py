"""Folders with no runs, unfinished runs, old reports or odd names still give a page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from dashboard_helpers import (
    NASTY,
    SEEDS,
    comparison,
    dense_run,
    folder_of,
    kept,
    report,
    sparse_run,
    unfinished,
    write_history,
)
from spec_helpers import changed

from hydraprune.dashboard.page import html
from hydraprune.dashboard.records import records
from hydraprune.errors import UserError


def test_a_folder_without_runs(tmp_path: Path) -> None:
    found = records([tmp_path])
    assert (found.cells, found.comparisons, found.runs, found.failures, found.labels) == ([], [], [], [], [])
    with pytest.raises(UserError, match="no such folder"):
        records([tmp_path / "no" / "such"])


def test_only_dense_runs(tmp_path: Path) -> None:
    for seed in SEEDS:
        dense_run(tmp_path, "mrpc", "bert_mini", seed)
    found = records([tmp_path])
    assert (found.labels, found.failures) == ([], [])
    (one,) = found.comparisons
    assert (one.points, one.layers, one.masks) == ([], [], [])
    assert [row["n"] for row in one.dense] == [3, 3]
    assert [(row["label"], row["n"]) for row in one.curves["loss"]][:3] == [("dense", 3), ("dense", 2), ("dense", 3)]
    assert "No runs here yet" not in html(found, "t")


def test_only_failures(tmp_path: Path) -> None:
    run_report = unfinished(replace(report("mrpc", "bert_mini", "4x1", 0), status="failed", error=NASTY))
    kept(run_report, tmp_path / "a")
    kept(unfinished(changed(run_report, hash="", cell="", seed=1)), tmp_path / "invalid overrides")
    found = records([tmp_path])
    assert [why for _, why in found.failures] == [NASTY, NASTY]
    assert [run["status"] for run in found.runs] == ["failed"]
    assert found.comparisons[0].points == []
    assert NASTY not in html(found, "t")


def test_a_running_run(tmp_path: Path) -> None:
    run_report = unfinished(replace(report("mrpc", "bert_mini", "4x1", 0), status="started"))
    write_history(kept(run_report, tmp_path / "a"), run_report, steps=30)
    found = records([tmp_path])
    assert [(row["step"], row["n"]) for row in comparison(found).curves["loss"]] == [(10, 1), (20, 1), (30, 1)]
    assert comparison(found).labels == {"4x1 at 90%"}


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_score_that_is_not_finite(value: float | None, tmp_path: Path) -> None:
    """Our reports have null; other programs write NaN."""
    run_report = sparse_run(tmp_path, "sst2", "tiny", "4x1", 0)
    place = folder_of(tmp_path, run_report) / "report.json"
    values = json.loads(place.read_text())
    place.write_text(json.dumps({**values, "final": {"accuracy": value}}))
    found = records([tmp_path])
    assert [run["score"] for run in found.runs] == [None]
    assert comparison(found, "sst2", "tiny").points == []
    json.dumps([one.__dict__ for one in found.comparisons], allow_nan=False)
    html(found, "t")


def test_a_report_of_an_older_version(tmp_path: Path) -> None:
    """Its parts do not name their weights: there are no masks, but everything else."""
    run_report = sparse_run(tmp_path, "sst2", "tiny", "4x1", 0, parts={"4x1": {"units": {}}})
    found = records([tmp_path])
    assert comparison(found, "sst2", "tiny").masks == []
    assert [run["score"] for run in found.runs] == [run_report.final["accuracy"]]


@pytest.mark.parametrize("name", ["a b/c", "modèle 'x' & <y>", '"</script>', "\N{SNOWMAN}", "a#b?c=d%20", "x,y;z|w"])
def test_odd_names(name: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        sparse_run(tmp_path / "runs", name, "tiny", "4x1", seed)
        sparse_run(tmp_path / "runs", "sst2", name, "4x1", seed)
        dense_run(tmp_path / "outputs", name, "tiny", seed)
    found = records([tmp_path / "runs"])
    assert {(one.task, one.model) for one in found.comparisons} == {(name, "tiny"), ("sst2", name)}
    assert len(comparison(found, name, "tiny").points) == 2
    assert [row["n"] for row in comparison(found, name, "tiny").dense] == [2]
    page = html(found, name)
    if "<" in name:
        assert name not in page
