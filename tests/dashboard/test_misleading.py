"""Cases in which the page could mislead: other recipes, missing seeds, repeated colors, equal names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dashboard_helpers import World, dense_run, folder_of, kept, report, sparse_run, write_history
from spec_helpers import changed

from hydraprune.dashboard import charts, export
from hydraprune.dashboard.figures import all_figures
from hydraprune.dashboard.page import html
from hydraprune.dashboard.records import records
from hydraprune.dashboard.theme import COLORS
from hydraprune.results.curves import read_history
from hydraprune.results.report import read_report


def test_an_exported_figure_shows_its_metric_only(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, dict] = {}
    monkeypatch.setattr(export.vl_convert, "vegalite_to_svg", lambda text: drawn.update({text: json.loads(text)}) or "")
    monkeypatch.setattr(export.vl_convert, "svg_to_png", lambda *_, **__: b"")
    export.write_figures([made.sweep], tmp_path)
    measured = [spec for spec in drawn.values() if any("metric" in row for row in spec["datasets"]["rows"])]
    assert len(measured) == 6
    for spec in measured:
        (metric,) = {row["metric"] for row in spec["datasets"]["rows"]}
        assert {row["metric"] for row in spec["datasets"]["dense"]} <= {metric}
        assert spec["title"].endswith(f": {metric}")
    assert {spec["title"].rpartition(" ")[2] for spec in measured} == {"f1", "accuracy"}
    curves = [spec for spec in measured if "over steps" in spec["title"]]
    for spec in curves:
        legend = spec["layer"][1]["encoding"]["color"]["legend"]["values"]
        labels = {"dense" if row["pattern"] == "dense" else row["label"] for row in spec["datasets"]["rows"]}
        assert set(legend) == labels


def test_dense_models_of_two_recipes_have_their_own_bands(tmp_path: Path) -> None:
    for pattern, score in (("4x1", 0.9), ("2:4", 0.7)):
        for seed in (0, 1):
            found = report("mrpc", "bert_mini", pattern, seed)
            kept(replace(found, dense={"f1": score, "accuracy": score, "run": "gone"}), tmp_path / f"{pattern}{seed}")
    (comparison,) = records([tmp_path]).comparisons
    bands = {row["label"]: (row["mean"], row["n"]) for row in comparison.dense if row["metric"] == "f1"}
    assert bands == {"dense of 4x1 at 90%": (0.9, 2), "dense of 2:4 at 50%": (0.7, 2)}


def test_dense_models_that_no_sparse_run_started_from_are_not_drawn(tmp_path: Path) -> None:
    sweep, outputs = tmp_path / "sweep", tmp_path / "outputs"
    dense_run(outputs, "mrpc", "bert_mini", 0)
    sparse_run(sweep, "mrpc", "bert_mini", "4x1", 0)
    other = changed(report("mrpc", "bert_mini", "dense", 0), cell="other", hash="other", overrides=["optimizer.lr=1"])
    kept(other, sweep / "other")
    write_history(sweep / "other", other)
    (comparison,) = records([sweep]).comparisons
    assert {row["cell"] for row in comparison.curves["loss"] if row["pattern"] == "dense"} == {
        report("mrpc", "bert_mini", "dense", 0).spec.cell
    }
    assert "other" in {cell.spec.cell for cell in records([sweep]).cells}


def test_a_curve_is_faint_where_a_seed_is_missing(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        found = report("sst2", "tiny", "4x1", seed)
        folder = kept(found, folder_of(tmp_path, found))
        write_history(folder, found, **({"steps": 30} if seed == 2 else {}))
    last = max(step for step, _ in read_history(folder)["sparsity/global"])
    (comparison,) = records([tmp_path]).comparisons
    assert {row["step"] > last for row in comparison.curves["sparsity"] if not row["whole"]} == {True}
    assert {row["step"] <= last for row in comparison.curves["sparsity"] if row["whole"]} == {True}
    (figure,) = [figure for figure in all_figures(records([tmp_path])) if figure.id.startswith("sparsity")]
    assert "Faint" in figure.caption
    assert "with 2 of 3 seeds" in figure.summary


def test_no_pattern_has_the_color_of_dense_models() -> None:
    labels = [f"{i}x1 at 90%" for i in range(1, 30)]
    names = charts.domain(labels)
    assert [name for name in names if name in labels] == labels
    assert len(set(names)) == len(names)
    assert not any(name in labels for name in names[::COLORS])


def test_layers_of_equal_roles_are_distinguished(tmp_path: Path) -> None:
    layers = [f"{part}.block.{i}.layer.{j}.wi" for part in ("encoder", "decoder") for i in (0, 1) for j in (0, 1)]
    found = report("sst2", "tiny", "4x1", 0)
    assert found.sparsity is not None
    kept(replace(found, sparsity={**found.sparsity, "per_layer": dict.fromkeys(layers, 0.5)}), tmp_path / "run")
    (comparison,) = records([tmp_path]).comparisons
    assert len({(row["role"], row["depth"]) for row in comparison.layers}) == len(layers)


def test_the_page_reveals_no_folders_above(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = html(records([made.sweep]), "t")
    monkeypatch.chdir(made.sweep)
    assert html(records([Path()]), "t") == here
    assert str(made.sweep.parents[1]) not in here


def test_reservations_about_published_figures_are_shown(tmp_path: Path) -> None:
    for seed in (0, 1):
        found = changed(report("mrpc", "bert_mini", "4x1", seed), overrides=["matrix=a", "training.epochs=1"])
        kept(found, folder_of(tmp_path, found))
        assert read_report(folder_of(tmp_path, found)) is not None
    page = html(records([tmp_path]), "t")
    assert "(but ours was run with training.epochs=1)" in page
