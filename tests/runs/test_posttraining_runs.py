"""Whole runs of post-training methods, without training and with training under the masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from saved_run_helpers import encoder_weights, metrics_of, report_of, run_folders, weights_of

WORDS = (
    "model=tiny", "task=toy", "task.train_examples=320", "task.evaluation_examples=64", "training.batch_size=32",
    "dense.overrides=['training.epochs=1']",
)  # fmt: skip


def only_run(workplace: Path, pattern: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[dict[str, Any]]]:
    """(report, saved weights, metrics) of the one run of that pattern."""
    (folder,) = run_folders(workplace / "outputs", pattern)
    return report_of(folder), weights_of(folder), metrics_of(folder)


def test_wanda_without_training(train: Callable[..., Any], workplace: Path) -> None:
    finished = train("experiment=quickstart", *WORDS, "pruner=wanda", "pattern=2:4")
    assert finished.code == 0, finished.err
    report, weights, lines = only_run(workplace, "2of4")
    dense, before, _ = only_run(workplace, "dense")
    assert dense["steps"] == 10, "the dense model's training is its own"
    assert (report["status"], report["criterion"], report["scheduler"]) == ("finished", "wanda", "one_shot")
    assert (report["steps"], report["examples"], report["teacher"]) == (0, 0, None)
    assert report["pattern_ok"] is True
    assert report["sparsity"]["prunable"] == 0.5
    assert report["parts"]["2:4"]["scope"] == "local"
    assert set(report["seconds"]) == {"total", "train", "eval", "teacher"}
    assert report["seconds"]["eval"] > 0
    assert report["best"] == {**report["final"], "epoch": 0}
    assert report["dense"]["accuracy"] == dense["final"]["accuracy"]
    assert lines == [{"step": 0, "epoch": 0, "eval/accuracy": report["final"]["accuracy"], "sparsity/global": 0.5}]
    for name, weight in encoder_weights(weights).items():
        assert bool(((weight.reshape(-1, 4) != 0).sum(-1) == 2).all())
        assert torch.equal(weight, before[name] * (weight != 0)), "Wanda changes no weight that stays"
    for name in weights.keys() - encoder_weights(weights).keys():
        assert torch.equal(weights[name], before[name])
    assert "Finished already" in train("experiment=quickstart", *WORDS, "pruner=wanda", "pattern=2:4").out
    planned = train("experiment=quickstart", *WORDS, "pruner=wanda", "pattern=2:4", "seed=1", "plan=true")
    assert planned.code == 0, planned.err


def test_training_under_the_masks(train: Callable[..., Any], workplace: Path) -> None:
    words = ("pruner=sparse_gpt", "pattern=4x1", "pattern.target_sparsity=0.5")
    assert train(*WORDS, *words, "run.root=outputs").code == 0
    _, pruned, _ = only_run(workplace, "4x1")
    (folder,) = workplace.glob("outputs/*/*/4x1/*")
    folder.rename(workplace / "kept")
    finished = train(*WORDS, *words, "training.epochs=2")
    assert finished.code == 0, finished.err
    report, weights, lines = only_run(workplace, "4x1")
    assert (report["steps"], report["pattern_ok"], report["teacher"]) == (20, True, "stored")
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2]
    assert all(line["sparsity/global"] == 0.5 for line in lines if "train/loss" in line)
    for name, weight in encoder_weights(weights).items():
        assert torch.equal(weight == 0, pruned[name] == 0)
        assert not torch.equal(weight, pruned[name])


@pytest.mark.parametrize(
    "words",
    [
        ("pruner=retrain_free", "pattern=heads", "training.precision=bf16"),
        ("pruner=wanda", "pattern=mixed", "lr_scheduler=linear", "recipe.lr_warmup=0.5ep"),
        ("pruner=magnitude", "scheduler=at_start", "training.epochs=0", "distill=none"),
    ],
    ids=" ".join,
)
def test_post_training_methods_reach_their_target(
    words: tuple[str, ...], train: Callable[..., Any], workplace: Path
) -> None:
    finished = train(*WORDS, *words)
    assert finished.code == 0, finished.err
    pattern = dict(word.split("=") for word in words).get("pattern", "4x1")
    report, _, _ = only_run(workplace, pattern)
    assert report["pattern_ok"] is True
    assert report["units"]["pruned"] == report["units"]["target"] > 0
    assert report["steps"] == 0


def test_a_resumed_run_does_not_calibrate_again(
    train: Callable[..., Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydraprune.runs import setup
    from hydraprune.training import checkpoints, loop

    monkeypatch.setattr(checkpoints, "SHARE", 1.0)
    calibrations: list[int] = []

    def counting(*arguments: Any) -> Any:
        calibrate = original(*arguments)

        def run(batches: int) -> Any:
            calibrations.append(batches)
            return calibrate(batches)

        return run

    def interrupted(run: Any, batches: Any, step: int, clock: Any) -> Any:
        if (step, run.steps) == (7, 20):
            raise KeyboardInterrupt
        return take_step(run, batches, step, clock)

    original, take_step = setup.TrainCalibration, loop.take_step
    words = (*WORDS, "pruner=wanda", "training.epochs=2", "training.checkpoint_every=3", "pruner.batches=2")
    assert train(*words, "run.root=whole").code == 0
    monkeypatch.setattr(setup, "TrainCalibration", counting)
    monkeypatch.setattr(loop, "take_step", interrupted)
    assert train(*words).code != 0
    assert calibrations == [2, 2]  # once for each of two blocks
    monkeypatch.setattr(loop, "take_step", take_step)
    finished = train(*words)
    assert finished.code == 0, finished.err
    assert "Resuming from step 6 of 20" in finished.out + finished.err
    assert calibrations == [2, 2]
    (one,), (two,) = (workplace.glob(f"{root}/*/*/4x1/*/model/model.safetensors") for root in ("whole", "outputs"))
    whole, resumed = load_file(one), load_file(two)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_refusals(train: Callable[..., Any], workplace: Path) -> None:
    for words, message_parts in {
        ("pattern=dense", "training.epochs=0"): ("training.epochs=0: a dense run",),
        ("pattern=dense", "pruner=wanda"): ("training.epochs=0: a dense run",),
        ("pruner=sparse_gpt", "pattern=1xchannel"): ("pruner=sparse_gpt: 1xchannel", "pruner=wanda"),
    }.items():
        own = [word for word in WORDS if not (word.startswith("dense.") and "pattern=dense" in words)]
        finished = train(*own, *words)
        assert finished.code == 2
        (line,) = finished.err.strip().splitlines()
        assert all(part in line for part in message_parts), line
    assert list(workplace.iterdir()) == []
