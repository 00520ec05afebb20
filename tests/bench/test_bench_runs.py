"""Models in the folders of runs: a bench says which run each is of, and the results matrix finds it by that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compact_helpers import save_sparse
from results_helpers import report

from hydraprune.bench import read_bench
from hydraprune.bench.models import load_models
from hydraprune.results.bench_report import BenchedRun
from hydraprune.results.collect import gather
from hydraprune.results.report import write_report
from hydraprune.utils.digests import weights_digest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run, with its model and one made from that."""
    folder = tmp_path / "sweep" / "run"
    folder.mkdir(parents=True)
    save_sparse(folder / "model", "bert", num_hidden_layers=1)
    shutil.copytree(folder / "model", folder / "model-slim")
    write_report(report(0, weights=weights_digest(folder / "model")), folder)
    return folder


def run_of(path: Path) -> BenchedRun | None:
    (model,) = load_models([str(path)], needs_tokenizer=False)
    return model.run


def test_the_run_of_a_model(run: Path, tmp_path: Path) -> None:
    digest = weights_digest(run / "model")
    assert run_of(run) == run_of(run / "model") == BenchedRun("cccccccccccc-0", "model", digest)
    assert run_of(run / "model-slim") == BenchedRun("cccccccccccc-0", "model-slim", digest)
    shutil.copytree(run / "model", tmp_path / "copy")
    assert run_of(tmp_path / "copy") is None
    write_report(report(0, status="started"), run)
    assert run_of(run) is None


def test_a_bench_below_a_sweep_is_in_its_results(run: Path, hydraprune: Callable[..., Any]) -> None:
    sweep = run.parent
    words = ["--engines", "torch,hydraprune", "--precisions", "fp32", "--batch", "1", "--length", "6", "--rounds", "1"]
    done = hydraprune("bench", str(run), *words, "--out", str(sweep / "bench"))
    assert done.code == 0, done.err
    (label,) = read_bench(sweep / "bench" / "bench.json").runs
    assert label == "run"
    (cell,) = gather([sweep]).cells
    assert {found.engine for found in cell.measured} == {"torch", "hydraprune"}
    done = hydraprune("report", str(sweep))
    assert "batch 1, 6 tokens, on " in done.out
    # It is not a measurement of a model that was trained again.
    write_report(report(0, weights="others"), run)
    done = hydraprune("report", str(sweep))
    assert "measured with other weights than its run has now" in done.out
    assert "batch 1, 6 tokens" not in done.out
