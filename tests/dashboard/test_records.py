"""The contents of the page, compared with an independent reading of the reports."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_helpers import (
    FFN,
    HEAD,
    NASTY,
    QUERY,
    SEEDS,
    STUDIES,
    World,
    comparison,
    folder_of,
    kept,
    masks_of,
    report,
    unfinished,
)

from hydraprune.dashboard.figures import over_all
from hydraprune.dashboard.records import Records, records
from hydraprune.results.collect import gather
from hydraprune.results.matrix import matrix
from hydraprune.results.report import RunReport, read_report


@pytest.fixture(scope="module")
def found(made: World) -> Records:
    return records([made.sweep])


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = []
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        if text.endswith("}"):
            lines.append(json.loads(text))
    return lines


def reports(*roots: Path) -> list[tuple[Path, RunReport]]:
    places = sorted(place.parent for root in roots for place in root.rglob("report.json"))
    return [(place, run_report) for place in places if (run_report := read_report(place)) is not None]


def test_dense_runs_are_found_from_another_folder(made: World, found: Records) -> None:
    """Only the sweep is given; its reports name their dense runs."""
    assert not list(made.sweep.rglob("dense*"))
    dense = [run for run in found.runs if run["phase"] == "dense"]
    assert {(run["task"], run["model"], run["seed"]) for run in dense} == {
        (*at, seed) for at in STUDIES for seed in SEEDS
    }
    assert {run["label"] for run in dense} == {"dense"}
    assert [cell.finished for cell in found.cells if cell.spec.phase == "dense"] == [SEEDS] * len(STUDIES)
    for (task, model), one in ((at, comparison(found, *at)) for at in STUDIES):
        for row in one.dense:
            values = [report(task, model, "dense", seed).final[row["metric"]] or 0 for seed in SEEDS]
            assert (row["low"], row["high"], row["n"]) == (min(values), max(values), len(SEEDS))
            assert row["mean"] == pytest.approx(float(np.mean(values)))
        assert [row["metric"] for row in one.dense] == one.metrics
    # The training of dense runs is drawn too.
    assert {row["label"] for row in comparison(found).curves["loss"]} >= {"dense", "4x1 at 90%"}


@pytest.mark.parametrize("named", [["sweep", "outputs"], ["outputs", "sweep"], ["sweep", "sweep"], ["sweep", "copy"]])
def test_every_run_counts_once(named: Sequence[str], made: World, found: Records, tmp_path: Path) -> None:
    folders = {"sweep": made.sweep, "outputs": made.outputs, "copy": tmp_path / "copy"}
    shutil.copytree(made.sweep, tmp_path / "copy", ignore=shutil.ignore_patterns("plan.json"))
    both = records([folders[name] for name in named])
    assert [run["hash"] for run in both.runs] == [run["hash"] for run in found.runs]
    assert len({run["hash"] for run in both.runs}) == len(both.runs)
    assert both.cells == found.cells
    for ours, theirs in zip(found.comparisons, both.comparisons, strict=True):
        assert theirs.curves == ours.curves
        assert theirs.points == ours.points
        assert theirs.layers == ours.layers


def test_other_paths_of_the_folders(made: World, found: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.outputs.parent)
    for folders in ([Path("multirun_sweeps/demo")], [Path("multirun_sweeps/demo"), made.outputs], [Path()]):
        again = records(folders)
        assert [run["hash"] for run in again.runs] == [run["hash"] for run in found.runs]
        assert again.comparisons[0].curves == found.comparisons[0].curves
    monkeypatch.chdir(made.sweep / "mrpc")
    assert len(records([Path("..")]).runs) == len(found.runs)


def test_a_finished_copy_counts_before_one_that_is_not(made: World, tmp_path: Path) -> None:
    run_report = report("mrpc", "bert_mini", "4x1", 0)
    kept(unfinished(replace(run_report, status="failed", error="once")), tmp_path / "a")
    kept(run_report, tmp_path / "b")
    (run,) = records([tmp_path]).runs
    assert (run["status"], run["folder"]) == ("finished", "b")


def test_cells_are_those_of_the_results_matrix(made: World, found: Records) -> None:
    plain = matrix([run_report for _, run_report in reports(made.sweep, made.outputs)], gather([made.sweep]).planned)
    assert sorted(found.cells, key=repr) == sorted(plain, key=repr)
    assert [cell.spec.phase for cell in found.cells] == sorted((cell.spec.phase for cell in plain), reverse=True)


def test_points_are_the_finished_runs(made: World, found: Records) -> None:
    wanted = {
        (spec.task, spec.model, spec.pattern, spec.seed, metric): (value, run_report.sparsity["prunable"])
        for _, run_report in reports(made.sweep)
        for spec in [run_report.spec]
        if run_report.finished and run_report.sparsity
        for metric, value in run_report.final.items()
        if value is not None
    }
    drawn = {
        (one.task, one.model, row["pattern"], row["seed"], row["metric"]): (row["score"], row["sparsity"])
        for one in found.comparisons
        for row in one.points
    }
    assert drawn == wanted
    # The score that is not finite is left out, but not its run.
    assert ("mrpc", "bert_mini", "1xchannel", 2, "f1") not in drawn
    assert ("mrpc", "bert_mini", "1xchannel", 2, "accuracy") in drawn


@pytest.mark.parametrize("task_and_model", STUDIES)
@pytest.mark.parametrize(
    ("curve", "logged"), [("loss", "train/loss"), ("sparsity", "sparsity/global"), ("score", "eval/accuracy")]
)
def test_bands_over_seeds(
    curve: str, logged: str, task_and_model: tuple[str, str], made: World, found: Records
) -> None:
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for place, run_report in reports(made.sweep, made.outputs):
        if (run_report.spec.task, run_report.spec.model) == task_and_model:
            for line in lines_of(place):
                if line.get(logged) is not None:
                    values[run_report.spec.cell, line["step"]].append(line[logged])
    rows = [
        row for row in comparison(found, *task_and_model).curves[curve] if row.get("metric", "accuracy") == "accuracy"
    ]
    assert {(row["cell"], row["step"]): (row["low"], row["high"], row["n"]) for row in rows} == {
        at: (min(some), max(some), len(some)) for at, some in values.items()
    }
    for row in rows:
        assert row["mean"] == pytest.approx(float(np.mean(values[row["cell"], row["step"]])))
    assert len(rows) == len(values) > 0
    # The history of one seed has a null there: two values are left.
    at_twenty = [row["n"] for row in rows if (row["label"], row["step"]) == ("4x1 at 90%", 20)]
    assert at_twenty == [2 if curve == "loss" else 3]


def test_layers_are_the_mean_over_seeds(found: Records) -> None:
    rows = [row for row in comparison(found).layers if row["label"] == "4x1 at 90%"]
    assert [(row["layer"], row["role"], row["depth"], row["n"]) for row in rows] == [
        (QUERY, "attention.self.query", "0", 3),
        (FFN, "output", "1", 3),
        (HEAD, HEAD, "head", 3),
    ]
    for row in rows:
        shares = [
            np.count_nonzero(~masks_of("4x1", seed)[row["layer"]]) / masks_of("4x1", seed)[row["layer"]].size
            for seed in SEEDS
        ]
        assert row["sparsity"] == pytest.approx(float(np.mean(shares)))


def test_masks_are_of_the_first_seed_with_a_model(made: World, found: Records, tmp_path: Path) -> None:
    rows = comparison(found).masks
    assert [(row["label"], row["part"], row["shape"], row["seed"]) for row in rows] == [
        ("4x1 at 90%", "4x1", "4x1", 0),
        ("2:4 at 50%", "2:4", "2:4", 0),
        ("1xchannel at 60%", "1xchannel", "1xchannel", 0),
        ("mixed at 90%", "attention", "4x1", 0),
        ("mixed at 90%", "1x1", "1x1", 0),
    ]
    for row in rows:
        whole = masks_of(row["pattern"], 0)[row["weight"].removesuffix(".weight")]
        seen = np.array([[bit == "1" for bit in line] for line in row["kept"]])
        height, width = seen.shape
        assert np.array_equal(seen, whole[row["top"] : row["top"] + height, row["left"] : row["left"] + width])
    # Without the first seed's model it is the second's; without any there are no masks, but everything else.
    shutil.copytree(made.sweep, tmp_path / "demo", ignore=shutil.ignore_patterns("plan.json"))
    first = folder_of(tmp_path / "demo", report("sst2", "tiny", "4x1", 0))
    shutil.rmtree(first / "model")
    assert [row["seed"] for row in comparison(records([tmp_path]), "sst2", "tiny").masks] == [1]
    for model in (tmp_path / "demo").rglob("model"):
        shutil.rmtree(model)
    assert comparison(records([tmp_path])).masks == []
    assert comparison(records([tmp_path])).points == comparison(found).points


def test_failures(made: World, found: Records) -> None:
    assert {str(made.sweep / what): why for what, why in found.failures} == made.failures
    by_status: dict[str, set[str]] = defaultdict(set)
    for run in found.runs:
        by_status[run["status"]].add(run["label"])
    assert by_status["failed"] == {"4x1 at 95%"}
    assert by_status["started"] == {"2:4 at 50%"}
    (failed,) = [run for run in found.runs if run["status"] == "failed"]
    assert (failed["error"], failed["score"], failed["sparsity"], failed["total"]) == (NASTY, None, None, None)


def test_run_rows_have_the_values_of_their_reports(made: World, found: Records) -> None:
    for row in found.runs:
        run_report = read_report(made.sweep / row["folder"])
        assert run_report is not None
        metric = run_report.metric or ""
        score, before = run_report.final.get(metric), (run_report.dense or {}).get(metric)
        assert (row["score"], row["dense"], row["metric"]) == (score, before, metric)
        assert row["difference"] == (None if score is None or before is None else score - before)
        if run_report.finished:
            assert run_report.steps is not None
            assert run_report.examples is not None
            assert row["steps_per_second"] == pytest.approx(run_report.steps / run_report.seconds["train"])
            assert row["examples_per_second"] == pytest.approx(run_report.examples / run_report.seconds["train"])


def test_differences_of_errors_have_a_figure_of_their_own(found: Records) -> None:
    first, *others = [cell for cell in found.cells if cell.spec.phase == "sparse"]
    before = {figure.id: figure for figure in over_all(found)}
    assert "cost-errors" not in before
    worse = replace(first, scores=(replace(first.scores[0], metric="perplexity"),))
    drawn = {figure.id: figure for figure in over_all(replace(found, cells=[worse, *others]))}
    assert [row["measure"] for row in drawn["cost-errors"].rows] == ["perplexity"]
    assert len(drawn["cost"].rows) == len(before["cost"].rows) - 1
