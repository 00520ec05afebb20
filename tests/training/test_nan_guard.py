"""The NaN guard in whole runs: non-finite losses and outputs end a run with one line, or their steps are skipped."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from cut_helpers import Ask, at_step, killed, left, log_of, same_bits
from data_helpers import encoded_of
from torch import nn

from hydraprune.data.batches import Batch, Batches
from hydraprune.errors import UserError
from hydraprune.runs import run as runs
from hydraprune.training import checkpoints, loop
from hydraprune.training.distillation import NoDistillation
from hydraprune.training.nan_guard import check_losses, first_nonfinite, refuse_step
from hydraprune.training.progress import Progress
from hydraprune.training.settings import Settings
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.teachers import NoTeacher


@pytest.fixture(autouse=True)
def logged_with_every_checkpoint(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)


def broken_loss(monkeypatch: pytest.MonkeyPatch, *calls: int) -> list[list[int]]:
    """Make the loss of these calls NaN; returns the examples of every call."""
    seen: list[list[int]] = []
    original: Callable[..., Any] = NoDistillation.loss

    def loss(self: NoDistillation, student: Any, batch: Batch, teacher_outputs: Any) -> Any:
        seen.append(sorted(batch.indices.tolist()))
        return original(self, student, batch, teacher_outputs) * (float("nan") if len(seen) - 1 in calls else 1.0)

    monkeypatch.setattr(NoDistillation, "loss", loss)
    return seen


@pytest.mark.parametrize("per_step", [1, 2])
def test_a_non_finite_loss_ends_the_run(per_step: int, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "training.skip_nonfinite=3 to skip such steps" in str(found.value)
    report = json.loads((experiment.directory / "report.json").read_text())
    assert report["status"] == "failed"
    assert report["error"] == str(found.value)
    kept = sorted(path.name for path in (experiment.directory / "checkpoints").iterdir())
    assert kept == ["step-000000012.safetensors", "step-000000016.safetensors"]


def test_skipped_steps_change_no_weight_and_survive_resuming(
    ask: Ask, ends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert [f"Step {i} skipped" in log_of(experiment.directory) for i in (9, 13, 14)] == [True, True, False]
    lines = [json.loads(line) for line in (experiment.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("train/skipped") for line in lines if "train/loss" in line] == [1, 2, 2]
    assert all(line["train/loss"] is not None for line in lines if "train/loss" in line)
    assert len(broken) == 30

    # Killed between the two and resumed, it ends the same: the checkpoint counts skipped steps.
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


def test_one_skipped_step_too_many_ends_the_run(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=dense", "training.skip_nonfinite=2")
    broken_loss(monkeypatch, 3, 9, 21)
    with pytest.raises(UserError, match=r"step 21 of 30: .* training.skip_nonfinite=4 to skip such steps"):
        runs.execute(experiment)


def test_a_learning_rate_that_is_too_high_is_named(ask: Ask) -> None:
    experiment = ask("pattern=4x1", "optimizer.lr=1e30", "distill=none", "dense.overrides=['optimizer.lr=0.001']")
    tries = r"reach .*e\+\d\d; try a lower optimizer.lr \(now 1e\+30\), training.max_grad_norm=1"
    with pytest.raises(UserError, match=r"step \d of 30: .* the weights still are, and " + tries):
        runs.execute(experiment)


def test_non_finite_outputs_in_an_evaluation_end_the_run(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step breaks the model, which no loss shows."""
    experiment = ask("pattern=dense")
    step = loop.take_step

    def breaks(run: Any, batches: Any, now: int, clock: Any) -> Any:
        loss = step(run, batches, now, clock)
        if now == 29:
            run.model.classifier.bias.data[0] = float("inf")
        return loss

    monkeypatch.setattr(loop, "take_step", breaks)
    with pytest.raises(
        UserError, match="output for 64 of 64 examples of validation is not finite, first for number 0 "
    ):
        runs.execute(experiment)
    assert json.loads((experiment.directory / "report.json").read_text())["status"] == "failed"


class ScaledIdentity(nn.Module):
    """A model with one weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))


def setup_of(weight: float, teacher: Any = None, **settings: Any) -> TrainingSetup:
    """The setup of a training of this model; what the guard does not read is left out."""
    model = ScaledIdentity(weight)
    unread: Any = None
    return TrainingSetup(
        model=model,
        distiller=NoDistillation(),
        teacher=teacher or NoTeacher(),
        pruners=(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.25),
        lr_scheduler=unread,
        accelerator=Accelerator(cpu=True),
        settings=Settings(epochs=2, batch_size=2, device="cpu", **settings),
        train=Batches(encoded_of([2, 3, 4, 5]), 2, shuffle_seed=0),
        evaluations={},
        score=unread,
        headline="accuracy",
        tracker=unread,
    )


def test_the_first_non_finite_loss_since_the_last_log_line_is_named() -> None:
    progress = Progress(step=3, losses=[torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(math.inf)])
    with pytest.raises(UserError, match=r"^step 1 of 4: .* the weights still are, and reach 2; try a lower optimizer"):
        check_losses(setup_of(2.0), progress)
    progress.losses = [torch.tensor(1.0)]
    check_losses(setup_of(2.0), progress)
    progress.losses = []
    check_losses(setup_of(2.0), progress)


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        ({}, ["lr (now 0.25)", "max_grad_norm=1", "skip_nonfinite=3"]),
        ({"max_grad_norm": 1.0, "skip_nonfinite": 4}, ["lr (now 0.25)", "skip_nonfinite=8"]),
        ({"precision": "bf16"}, ["lr (now 0.25)", "max_grad_norm=1", "precision=fp32", "skip_nonfinite=3"]),
    ],
    ids=["default", "clipped", "bf16"],
)
def test_the_cure_names_only_what_is_not_set_yet(settings: dict[str, Any], remedies: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        refuse_step(setup_of(1.0, **settings), 0)
    assert refused.value.cure is not None
    every = ("lr (now 0.25)", "max_grad_norm=1", "precision=fp32", "skip_nonfinite")
    assert all(remedy in refused.value.cure for remedy in remedies)
    assert sum(remedy in refused.value.cure for remedy in every) == len(remedies)


def test_broken_weights_are_named() -> None:
    setup = setup_of(math.nan)
    assert first_nonfinite(setup.model) == "weight"
    assert first_nonfinite(ScaledIdentity(1.0)) is None
    with pytest.raises(UserError, match="by now 1 weights are not finite either, weight among them; try"):
        refuse_step(setup, 0)


class BrokenTeacher:
    """A teacher whose output for one example is NaN."""

    def outputs(self, batch: Batch) -> torch.Tensor:
        return torch.where(batch.indices == 3, math.nan, 1.0).unsqueeze(1)


def test_a_broken_teacher_is_named() -> None:
    setup = setup_of(1.0, BrokenTeacher())
    step = next(step for step, indices in enumerate(setup.train.order(0)) if 3 in indices)
    with pytest.raises(UserError, match=r"the teacher's output for example 3 is not finite; check distill\.teacher"):
        refuse_step(setup, step)
