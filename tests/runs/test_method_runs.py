"""Whole runs of pruning methods: sparse models pruned further, progressive masks, impossible combinations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_run_helpers import encoder_weights, metrics_of, report_of, run_folders, weights_of

WORDS = (
    "model=tiny", "task=toy", "task.train_examples=320", "task.evaluation_examples=64", "training.batch_size=32",
    "runtime.threads=1", "training.epochs=2", "dense.overrides=['training.epochs=1']", "scheduler.warmup=2",
    "scheduler.cooldown=2",
)  # fmt: skip


def run_of(workplace: Path, pattern: str) -> tuple[Path, dict[str, Any], dict[str, torch.Tensor]]:
    """(folder, report, weights of the encoder) of the one run of that pattern."""
    (folder,) = run_folders(workplace / "outputs", pattern)
    return folder, report_of(folder), encoder_weights(weights_of(folder))


@pytest.fixture
def sparse(train: Callable[..., Any], workplace: Path) -> Path:
    """A model with 60 % unstructured sparsity: many of its 4x1 blocks are partly zero."""
    assert train(*WORDS, "pattern=1x1", "pattern.target_sparsity=0.6", "pruner=magnitude").code == 0
    folder, report, _ = run_of(workplace, "1x1")
    assert report["sparsity"]["prunable"] == pytest.approx(0.6, abs=1e-5)
    return folder / "model"


def test_a_sparse_model_is_fine_tuned_and_pruned_further(
    train: Callable[..., Any], workplace: Path, sparse: Path
) -> None:
    _, _, before = run_of(workplace, "1x1")
    # Without dropout the student equals its teacher: distillation would have nothing to teach.
    finished = train(*WORDS[:7], "pattern=lock", "distill=none", f"dense.source={sparse}")
    assert finished.code == 0, finished.err
    folder, report, after = run_of(workplace, "lock")
    assert folder.name.startswith("lock-seed0-")
    assert all(torch.equal(before[name] == 0, weight == 0) for name, weight in after.items())
    assert any(not torch.equal(before[name], weight) for name, weight in after.items())
    assert (report["pattern_ok"], report["criterion"]) == (True, "keep")
    assert report["target_sparsity"] is None  # nothing was asked for
    assert report["parts"]["lock"]["target_sparsity"] == report["sparsity"]["prunable"] == pytest.approx(0.6, abs=1e-5)

    words = (*WORDS, "pattern=1x1", "pattern.target_sparsity=0.9", f"dense.source={sparse}", "run.root=outputs/further")
    finished = train(*words)
    assert finished.code == 0, finished.err
    (place,) = run_folders(workplace / "outputs/further", "1x1")
    shown = [line["sparsity/global"] for line in metrics_of(place) if "sparsity/global" in line]
    assert shown == sorted(shown)
    assert shown[0] > 0.6
    further = weights_of(place)
    assert all(bool((further[name][weight == 0] == 0).all()) for name, weight in before.items())
    assert report_of(place)["pattern_ok"] is True

    refused = train(*WORDS, "pattern=1x1", "pattern.target_sparsity=0.5", f"dense.source={sparse}", "run.root=other")
    assert refused.code == 2
    assert "pattern.target_sparsity=0.5: the model has" in refused.err


@pytest.mark.parametrize("words", [("pattern=2:4",), ("pattern=4x1", "pattern.target_sparsity=0.7")], ids=" ".join)
def test_a_sparse_model_keeps_its_zeros_in_any_pattern(
    train: Callable[..., Any], workplace: Path, sparse: Path, words: tuple[str, ...]
) -> None:
    _, _, before = run_of(workplace, "1x1")
    root = "run.root=outputs/kept"
    finished = train(*WORDS, *words, f"dense.source={sparse}", root)
    assert finished.code == 0, finished.err
    assert "are zero when training starts and stay zero" in finished.err + finished.out
    (place,) = run_folders(workplace / "outputs/kept", words[0].removeprefix("pattern=").replace(":", "of"))
    after, report = weights_of(place), report_of(place)
    assert all(bool((after[name][weight == 0] == 0).all()) for name, weight in before.items())
    assert report["pattern_ok"] is True
    assert report["sparsity"]["prunable"] > report["target_sparsity"]


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("pattern=4x1", "progressive=scores", "scheduler.frequency=4", "regularizer=group_lasso"), "4x1"),
        (("pattern=block", "progressive=linear", "scheduler.frequency=4", "pattern.scope=erk"), "8x1"),
        (("pattern=heads", "pruner=sr_ste", "training.accumulation=2", "training.batch_size=16"), "heads"),
        (("pattern=mixed", "+progressive@pattern.parts.ffn.progressive=scores", "scheduler.frequency=4"), "mixed"),
    ],
    ids=" ".join,
)
def test_the_saved_model_obeys_the_pattern(
    train: Callable[..., Any], workplace: Path, words: tuple[str, ...], pattern: str
) -> None:
    finished = train(*WORDS, *words)
    assert finished.code == 0, finished.err
    folder, report, weights = run_of(workplace, pattern)
    assert (report["status"], report["pattern_ok"]) == ("finished", True)
    units = report["units"]
    assert units["pruned"] == units["target"] > 0
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    lines = metrics_of(folder)
    pruned = sum(weights[name].numel() for part in report["parts"].values() for name in part["weights"])
    # The last line of metrics is counted in masks, the report in the saved file.
    assert [line["sparsity/global"] for line in lines if "sparsity/global" in line][-1] == zeros / pruned
    assert report["sparsity"]["prunable"] == zeros / pruned


def test_impossible_combinations_are_refused_by_config_key(train: Callable[..., Any], workplace: Path) -> None:
    for words, line in (
        (("pattern=lock", "pruner=snip"), "pattern=lock: prunes nothing; leave pruner"),
        (
            ("pattern=4x1", "progressive=scores", "scheduler.frequency=3"),
            "scheduler.frequency=3: 4 parts need at",
        ),
        (("pattern=2:4", "progressive=linear", "scheduler.frequency=4"), "progressive.order=linear: 2:4 has no blocks"),
        (("pattern=2:4", "regularizer=group_lasso"), "regularizer=group_lasso: shrinks whole blocks, and 2:4 has none"),
        (("pattern=4x1", "pattern.scope=uniform"), "pattern.scope=uniform: must be"),
        (("pattern=4x1", "pattern.initial_sparsity=0.95"), "pattern.initial_sparsity=0.95: must be between 0 and"),
        (("pattern=heads", "pattern.layers.exclude=[key]"), "has no key among the chosen layers"),
        (("pattern=4x1", "training.precision=fp16"), "training.precision=fp16: needs a CUDA device"),
        (("pattern=4x1", "progressive=scores", "progressive.parts=1"), "progressive.parts=1: must be"),
        (
            ("pattern=4x1", "regularizer=group_lasso", "regularizer.strength=-1"),
            "regularizer.strength=-1: must be",
        ),
    ):
        refused = train(*(WORDS[:7] if "pattern=lock" in words else WORDS), *words)
        assert refused.code == 2, words
        assert line in refused.err, (words, refused.err)
        assert refused.err.count("\n") == 1, refused.err
    assert not (workplace / "outputs").exists()
