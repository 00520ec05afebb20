"""fp16 with a loss scaler: scores and clipping use unscaled gradients, and skipped steps change nothing.

Accelerate offers fp16 on accelerators only. The tests set up by hand on the CPU what it would do there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from compose_helpers import composing
from model_helpers import save_tiny

from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.setup import TaskLoader, prepare
from hydraprune.tracking import Silent
from hydraprune.training.clock import Clock
from hydraprune.training.settings import Settings
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.step import take_step


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, small: tuple[str, ...]) -> Iterator[TrainingSetup]:
    folder = save_tiny(tmp_path_factory.mktemp("dense"))
    own = [word for word in small if not word.startswith("dense.")]
    with composing() as compose:
        config = compose(
            *own, f"dense.source={folder}", "distill=none", "training.max_grad_norm=1000", "cache.max_gb=0"
        )
        experiment = build_experiment(config)
        yield prepare(experiment, str(folder), TaskLoader()).training(Silent())
    AcceleratorState._reset_state(reset_partial_state=True)


def half(run: TrainingSetup, scale: float) -> TrainingSetup:
    """The setup with fp16 autocast and a loss scaler."""
    run.accelerator.state._mixed_precision = "fp16"
    run.accelerator.native_amp = True
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    inner = run.optimizer.optimizer  # type: ignore[attr-defined]
    return replace(run, optimizer=run.accelerator.prepare_optimizer(inner))


def scores_of(run: TrainingSetup) -> dict[str, torch.Tensor]:
    (pruner,) = run.pruners
    return {name: tensor.clone() for name, tensor in pruner.state_dict()["memory"].items()}


def test_scores_do_not_depend_on_the_scale(run: TrainingSetup) -> None:
    scores, begin = [], copy.deepcopy(run.model.state_dict())
    batch = next(iter(run.train.epoch(0)))
    for scale in (2.0**8, 2.0**12):  # where little underflows and nothing overflows
        run.model.load_state_dict(begin)
        run.model.train()
        scaled = half(run, scale)
        (pruner,) = run.pruners
        pruner.load_state_dict({**pruner.state_dict(), "memory": {}})
        torch.manual_seed(0)
        take_step(scaled, [batch], 0, Clock())
        scores.append(scores_of(run))
    assert scores[0]
    for name, plain in scores[0].items():
        assert float(plain.sum()) > 0
        assert float(scores[1][name].sum()) == pytest.approx(float(plain.sum()), rel=0.05), name


def test_a_skipped_step_changes_no_weight_and_no_score(run: TrainingSetup) -> None:
    run = half(run, 2.0**60)  # more than fp16 can hold: every gradient overflows
    before = copy.deepcopy(run.model.state_dict())
    take_step(run, [next(iter(run.train.epoch(0)))], 0, Clock())
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert scores_of(run) == {}
    assert run.accelerator.scaler.get_scale() < 2.0**60


def test_fp16_is_refused_without_cuda() -> None:
    if torch.cuda.is_available():
        assert Settings(1, 1, precision="fp16").precision == "fp16"
    for device in ("auto", "cpu") if not torch.cuda.is_available() else ("cpu",):
        with pytest.raises(ValueError, match=r"precision=fp16: needs a CUDA device.*bf16"):
            Settings(1, 1, precision="fp16", device=device).check_device()
