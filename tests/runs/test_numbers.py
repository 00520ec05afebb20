"""Numbers that go wrong: one line that says where, of what, and what to try; nothing ends as if it was well."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_helpers import Ask, at_step, killed, left, log_of, same_bits
from safetensors.torch import load_file, save_file

from hydraprune.data.batches import Batch
from hydraprune.errors import UserError
from hydraprune.runs import run as runs
from hydraprune.runs.preflight import preflight
from hydraprune.runs.setup import TaskLoader
from hydraprune.training import checkpoints, loop
from hydraprune.training.distillation import NoDistillation


@pytest.fixture(autouse=True)
def as_on_the_command_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


def broken_loss(monkeypatch: pytest.MonkeyPatch, *calls: int) -> list[list[int]]:
    """The loss of these calls is NaN; returns the examples of every call."""
    seen: list[list[int]] = []
    honest: Callable[..., Any] = NoDistillation.loss

    def loss(self: NoDistillation, student: Any, batch: Batch, answers: Any) -> Any:
        seen.append(sorted(batch.indices.tolist()))
        return honest(self, student, batch, answers) * (float("nan") if len(seen) - 1 in calls else 1.0)

    monkeypatch.setattr(NoDistillation, "loss", loss)
    return seen


@pytest.mark.parametrize("per_step", [1, 2])
def test_a_loss_that_is_no_number(per_step: int, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulation = (f"training.accumulation={per_step}", f"training.batch_size={32 // per_step}")
    experiment = ask("pattern=dense", *accumulation)
    seen = broken_loss(monkeypatch, 17 * per_step)
    with pytest.raises(UserError, match="step 17 of 30: the loss or its gradients are not finite") as found:
        runs.execute(experiment)
    examples = sorted(i for batch in seen[17 * per_step : 18 * per_step] for i in batch)
    assert len(examples) == 32
    shown = ", ".join(map(str, examples[:16]))
    assert f"of training examples {shown} and 16 more (counted from 0); the weights still are, and reach " in str(
        found.value
    )
    assert "training.skip_nonfinite=3 to pass over" in str(found.value)
    report = json.loads((experiment.directory / "report.json").read_text())
    assert report["status"] == "failed"
    assert report["error"] == str(found.value)
    kept = sorted(path.name for path in (experiment.directory / "checkpoints").iterdir())
    assert kept == ["step-000000012.safetensors", "step-000000016.safetensors"]


def test_some_may_be_passed_over(ask: Ask, ends: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=dense", "training.skip_nonfinite=2")
    weights: list[Any] = []
    broken = broken_loss(monkeypatch, 9, 13)
    step = loop.take_step

    def noted(run: Any, *rest: Any) -> Any:
        weights.append([weight.detach().clone() for weight in run.model.parameters()])
        return step(run, *rest)

    monkeypatch.setattr(loop, "take_step", noted)
    runs.execute(experiment)
    same = [all(map(torch.equal, weights[i], weights[i + 1])) for i in range(len(weights) - 1)]
    assert [i for i, is_same in enumerate(same) if is_same] == [9, 13]
    assert [f"Step {i} passed over" in log_of(experiment.directory) for i in (9, 13, 14)] == [True, True, False]
    lines = [json.loads(line) for line in (experiment.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("train/skipped") for line in lines if "train/loss" in line] == [1, 2, 2]
    assert all(line["train/loss"] is not None for line in lines if "train/loss" in line)
    assert len(broken) == 30

    # Cut between the two, it ends the same: what was passed over is counted in the checkpoint.
    whole = left(experiment.directory)
    experiment.directory.rename("whole")
    monkeypatch.setattr(loop, "take_step", step)
    broken.clear()
    killed(experiment, monkeypatch, at_step(12))
    broken.extend([[]] * 12)
    runs.execute(experiment)
    now = left(experiment.directory)
    assert now[0] == whole[0]
    assert same_bits(now[2], whole[2])
    assert same_bits(*ends)


def test_one_too_many(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=dense", "training.skip_nonfinite=2")
    broken_loss(monkeypatch, 3, 9, 21)
    with pytest.raises(UserError, match=r"step 21 of 30: .* training.skip_nonfinite=4 to pass over"):
        runs.execute(experiment)


def test_a_rate_that_is_too_high(ask: Ask) -> None:
    experiment = ask("pattern=4x1", "optimizer.lr=1e30", "distill=none", "dense.overrides=['optimizer.lr=0.001']")
    tries = r"reach .*e\+\d\d; try a lower optimizer.lr \(now 1e\+30\), training.max_grad_norm=1"
    with pytest.raises(UserError, match=r"step \d of 30: .* the weights still are, and " + tries):
        runs.execute(experiment)


def test_what_the_model_answers(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step breaks it, and no loss tells."""
    experiment = ask("pattern=dense")
    step = loop.take_step

    def breaks(run: Any, batches: Any, now: int, clock: Any) -> Any:
        loss = step(run, batches, now, clock)
        if now == 29:
            run.model.classifier.bias.data[0] = float("inf")
        return loss

    monkeypatch.setattr(loop, "take_step", breaks)
    with pytest.raises(UserError, match="answers to 64 of 64 examples of validation is not finite, example 0 "):
        runs.execute(experiment)
    assert json.loads((experiment.directory / "report.json").read_text())["status"] == "failed"


def test_a_teacher_that_is_no_number(ask: Ask, workplace: Path) -> None:
    """Refused before anything is trained, whoever is the teacher."""
    dense = ask("pattern=dense", "training.epochs=1")
    runs.execute(dense)
    model = dense.directory / "model"
    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    weights[name][3, 5] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    for key in ("dense.source", "distill.teacher"):
        experiment = ask("pattern=4x1", f"{key}={model}")
        with pytest.raises(UserError, match=rf"{key}=.*: 1 of its weights hold NaN or infinity, {name} among them"):
            preflight(experiment, TaskLoader())
        assert not experiment.directory.exists()


def test_layers_that_are_emptied(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=4x1", "pattern.cap=1.0", "pattern.target_sparsity=0.97")
    runs.execute(experiment)
    log = log_of(experiment.directory)
    report = json.loads((experiment.directory / "report.json").read_text())
    weights = load_file(experiment.directory / "model" / "model.safetensors")
    emptied = [name for name, weight in weights.items() if "layer" in name and weight.dim() == 2 and not weight.any()]
    assert emptied, report["parts"]
    assert f"pruner 4x1: {len(emptied)} of its layers have no weight left (" in log
    assert all(f"{name}" in log for name in emptied)
