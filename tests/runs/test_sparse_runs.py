"""Runs with sparse steps: what the report and the log say, how to turn them off, and resuming in the middle of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_helpers import Ask, at_step, killed, left, log_of, same_bits
from saved_run_helpers import encoder_weights, metrics_of, report_of, weights_of

from hydraprune.runs import live_setup
from hydraprune.runs import run as runs
from hydraprune.training import checkpoints

WORDS = ("pattern=4x1",)


@pytest.fixture(autouse=True)
def every_checkpoint(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Write every checkpoint, however long the last one took; and log as the command line does."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


@pytest.fixture
def dense(ask: Ask, kept: Path) -> str:
    """The word for the dense model that all runs start from."""
    experiment = ask("pattern=dense", "training.epochs=1", f"run.root={kept}")
    runs.execute(experiment)
    return f"dense.source={experiment.directory / 'model'}"


def done(ask: Ask, *words: str) -> Path:
    experiment = ask(*words)
    runs.execute(experiment)
    return experiment.directory


def test_the_report_counts_sparse_steps_and_one_key_turns_them_off(ask: Ask, dense: str) -> None:
    folder = done(ask, *WORDS, dense)
    counted = report_of(folder)["sparse_steps"]
    # Updates at 5, 9, ... 25 of 30 steps.
    assert 5 < counted["count"] < 25
    assert report_of(folder)["sparse_gain"] > 0
    assert counted["revived"] == 0
    assert "Every step is dense" not in log_of(folder)
    folder.rename("sparse")

    assert done(ask, *WORDS, dense, "runtime.sparse_steps=false") == folder  # the same hash
    assert report_of(folder)["sparse_steps"] == {"count": 0, "revived": 0, "switch_density": 0.0}
    one, other = weights_of(Path("sparse")), weights_of(folder)
    for name, weight in encoder_weights(one).items():
        assert torch.equal(weight == 0, other[name] == 0), name
        assert (weight - other[name]).norm() <= 1e-3 * weight.norm(), name
    scores = [[(m["step"], m.get("sparsity/global")) for m in metrics_of(f)] for f in (Path("sparse"), folder)]
    assert scores[0] == scores[1]


def test_without_compiled_code_steps_are_dense(ask: Ask, dense: str) -> None:
    folder = done(ask, *WORDS, dense, "runtime.compiled=false")
    assert report_of(folder)["sparse_steps"]["count"] == 0


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("training.max_grad_norm=1.0", "training.max_grad_norm"),
        ("pruner=gradient", "needs the gradients of pruned weights"),
        ("training.precision=bf16", None),
    ],
)
def test_the_log_says_why_every_step_is_dense(word: str, why: str | None, ask: Ask, dense: str) -> None:
    folder = done(ask, *WORDS, word, dense)
    said = [line for line in log_of(folder).splitlines() if "Every step is dense" in line]
    assert (report_of(folder)["sparse_steps"]["count"] == 0) == (why is not None)
    assert len(said) == (why is not None)
    assert all(str(why) in line for line in said)


def test_a_compiler_that_fails_leaves_dense_steps(ask: Ask, dense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> Any:
        raise OSError("cc: fails")

    monkeypatch.setattr(live_setup, "compile_training", broken)
    folder = done(ask, *WORDS, dense)
    assert report_of(folder)["sparse_steps"]["count"] == 0
    assert "Every step is dense: the kernels cannot be compiled (OSError: cc: fails)" in log_of(folder)


def test_a_share_that_is_measured_is_recorded_and_reported(ask: Ask, dense: str, tmp_path: Path) -> None:
    words = (*WORDS, dense, "runtime.switch_density=null", f"cache.dir={tmp_path / 'cache'}")
    folder = done(ask, *words)
    share = report_of(folder)["sparse_steps"]["switch_density"]
    assert 0 <= share <= 1
    assert len(list((tmp_path / "cache" / "native").glob("*.json"))) == 1
    assert log_of(folder).count("they compute densities up to") == 1
    folder.rename("first")

    assert done(ask, *words) == folder
    assert "they compute densities up to" not in log_of(folder)
    assert same_bits(weights_of(folder), weights_of(Path("first")))


def test_a_student_in_the_kernels_differs_from_its_dense_teacher(ask: Ask, dense: str) -> None:
    """By rounding, without dropout: with scores of 0 alone the first mask would follow the order of the blocks."""
    folder = done(ask, *WORDS, dense, "runtime.switch_density=1")
    assert report_of(folder)["sparse_steps"]["count"] > 5
    assert "all scores are 0" not in log_of(folder)


def test_the_kernels_compute_dense_steps_of_any_run_where_they_are_faster(ask: Ask, dense: str) -> None:
    words = ("pattern=dense", "training.epochs=1")
    folder = done(ask, *words, "runtime.switch_density=0.65")
    folder.rename("torch")
    assert done(ask, *words, "runtime.switch_density=1") == folder
    one, other = weights_of(Path("torch")), weights_of(folder)
    weights = encoder_weights(one)
    assert any(not torch.equal(weight, other[name]) for name, weight in weights.items())
    for name, weight in weights.items():
        assert (weight - other[name]).norm() <= 1e-3 * weight.norm(), name

    # Kernels leave padded positions 0, which this loss reads.
    folder = done(ask, *WORDS, "distill.padding=true", dense, "runtime.switch_density=1")
    assert report_of(folder)["sparse_steps"]["count"] == 0
    assert "Every step is dense: the loss reads hidden states of padded positions" in log_of(folder)

    # A method that needs the gradients of masked weights.
    folder = done(ask, *WORDS, "pruner=gradient", dense, "runtime.switch_density=1")
    assert report_of(folder)["sparse_steps"] == {"count": 0, "revived": 0, "switch_density": 1.0}


def test_zeros_of_a_sparse_model_are_kept_in_sparse_steps(ask: Ask, dense: str) -> None:
    first = done(ask, *WORDS, dense)
    folder = done(ask, "pattern=lock", f"dense.source={first / 'model'}")
    assert report_of(folder)["sparse_steps"]["count"] == 30
    assert report_of(folder)["sparse_gain"] is None  # there is no dense step to compare with
    before, after = weights_of(first), weights_of(folder)
    for name, weight in encoder_weights(before).items():
        assert torch.equal(weight == 0, after[name] == 0)
        assert not torch.equal(weight, after[name])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("words", [WORDS, ("pattern=mixed", "optimizer=sgd", "training.accumulation=2")], ids=len)
def test_a_run_killed_in_sparse_steps_resumes_with_the_same_bits(
    words: tuple[str, ...], ask: Ask, dense: str, ends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = ask(*words, dense)
    runs.execute(experiment)
    folder = experiment.directory
    whole = left(folder)
    count = report_of(folder)["sparse_steps"]["count"]
    folder.rename("whole")
    # In dense steps; right after an update, when checkpoints of sparse steps were written; and with the last masks.
    steps = report_of(Path("whole"))["steps"]
    for cut in (7, steps - 8, steps - 1):
        killed(experiment, monkeypatch, at_step(cut, steps))
    runs.execute(experiment)
    now = left(folder)
    assert now[:2] == whole[:2]
    assert same_bits(now[2], whole[2])
    assert report_of(folder)["sparse_steps"]["count"] == count
    assert same_bits(*ends[-2:])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize(
    ("sparse", "words"), [("true", WORDS), ("false", WORDS), ("true", (*WORDS, "pattern.layers.exclude=['.*query']"))]
)
def test_a_run_goes_on_with_the_other_kind_of_steps(
    sparse: str, words: tuple[str, ...], ask: Ask, dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint, of step 28, has an optimizer state of packed weights, or of whole ones."""
    other = {"true": "false", "false": "true"}[sparse]
    folder = done(ask, *words, dense)
    whole = weights_of(folder)
    folder.rename("whole")
    killed(ask(*words, dense, f"runtime.sparse_steps={sparse}"), monkeypatch, at_step(29))
    assert done(ask, *words, dense, f"runtime.sparse_steps={other}") == folder
    assert "Resuming from step 28" in log_of(folder)
    count = report_of(Path("whole"))["sparse_steps"]["count"]
    assert report_of(folder)["sparse_steps"]["count"] == (count - 2 if sparse == "true" else 2)
    for name, weight in encoder_weights(whole).items():
        found = weights_of(folder)[name]
        assert torch.equal(weight == 0, found == 0), name
        assert (weight - found).norm() <= 1e-3 * weight.norm(), name
