"""Trainings of a tiny model, of which every step is dense or those are sparse that can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from typing import Any

import torch
from accelerate import Accelerator
from model_helpers import TWO_CLASSES
from sparsity_helpers import plan_of
from torch import Tensor
from trained_layer_helpers import training_kernels

from hydraprune.data.batches import Batches
from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples
from hydraprune.data.labels import CLASSES
from hydraprune.kernels.dropout import use_fast_dropout
from hydraprune.models.attention import choose_attention
from hydraprune.models.families import family_of_model
from hydraprune.models.live_layers import LiveLayers
from hydraprune.models.tiny import TinyModel
from hydraprune.sparsity import AtOnce, Exp, Method, Plans, Pruner, Regularizer, Schedule, SnipMomentum, attach, block
from hydraprune.training.calibration import TrainCalibration
from hydraprune.training.clock import Clock
from hydraprune.training.distillation import NoDistillation
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.settings import Settings
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.sparse_steps import SparseSteps
from hydraprune.training.step import take_step
from hydraprune.training.teachers import NoTeacher

TINY = TinyModel("tiny", 32, 2, 4, 64, dropout=0.1, initializer_range=0.2)
TEXTS = [(" ".join(["good", "food", "bad", "service"] * 3)[: 5 + 7 * (place % 9)],) for place in range(48)]
DATA = encode(TINY.tokenizer(), Examples(TEXTS, [place % 2 for place in range(48)]), 64, CLASSES)
# Updates at 3, 6, ... 18, and 6 steps with the last masks.
RAMP = Exp(warmup=3, cooldown=6, frequency=3)
STEPS = 24
FOUR = block(4, 1, 0.9)


def adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-3)


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01)


@dataclass
class Trained:
    """A training, and what it was like after every step.

    Args:
        masks: parameter name -> mask in force.
        sparse: whether the next step is sparse.
    """

    setup: TrainingSetup
    pruners: tuple[Pruner, ...]
    masks: list[dict[str, Tensor]] = field(default_factory=list)
    sparse: list[bool] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, Tensor]:
        self.setup.sparse_steps.write()
        return {name: weight.detach() for name, weight in self.setup.model.named_parameters()}

    def start(self) -> Trained:
        for pruner in self.pruners:
            pruner.project(0, self.setup.optimizer)
        self.setup.sparse_steps.follow(0)
        self._note()
        return self

    def train(self, first: int = 0, end: int = STEPS) -> Trained:
        size = self.setup.settings.accumulation
        for step in range(first, end):
            batches = [
                self.setup.train.batch((torch.arange(8) + 8 * (step * size + part)) % len(TEXTS))
                for part in range(size)
            ]
            loss = take_step(self.setup, batches, step, Clock())
            assert loss is not None
            self.losses.append(float(loss))
            self._note()
        return self

    def _note(self) -> None:
        self.masks.append({name: m.clone() for pruner in self.pruners for name, m in pruner.masks_in_force.items()})
        self.sparse.append(self.setup.sparse_steps.active)


BELOW_ONE = 0.99999
Wrap = Callable[[tuple[Pruner, ...]], tuple[Pruner, ...]]


def training(
    plans: Plans = FOUR,
    method: Method | None = None,
    schedule: Schedule = RAMP,
    switch_density: float | None = BELOW_ONE,
    optimizer: Any = adamw,
    transition: Any = None,
    regularizer: Regularizer | None = None,
    prepare: Callable[[Any], None] = lambda model: None,
    replace: Wrap = lambda pruners: pruners,
    steps: int = STEPS,
    **settings: Any,
) -> Trained:
    """A training that is set up; the same random numbers every time.

    Args:
        switch_density: of `SparseSteps`; None: every step is dense. At 1 the kernels compute dense steps too, with
            other rounding.
        prepare: does something to the model before pruners are attached.
        replace: gives the pruners to use in place of those attached.
    """
    torch.manual_seed(0)
    model: Any = TINY.load(TWO_CLASSES)
    prepare(model)
    choose_attention(model, torch.device("cpu"))
    use_fast_dropout(model)
    accelerator, batches = Accelerator(cpu=True), Batches(DATA, 8)
    plan = plan_of(plans, method or SnipMomentum(), schedule, transition or AtOnce(), regularizer)
    known = family_of_model(model)
    assert known is not None
    family = replaced(known, heads=TINY.heads)
    calibration = TrainCalibration(model, batches, accelerator)
    pruners = replace(attach(model, {plans.name: plan}, family, steps, calibration=calibration))
    made = optimizer(decay_groups(model))
    sparse = SparseSteps(None)
    if switch_density is not None:
        sparse = SparseSteps(LiveLayers(model.base_model, training_kernels()), pruners, switch_density, made)
    unread: Any = None
    setup = TrainingSetup(
        model=model.train(),
        distiller=NoDistillation(),
        teacher=NoTeacher(),
        pruners=pruners,
        optimizer=accelerator.prepare_optimizer(made),
        lr_scheduler=torch.optim.lr_scheduler.ConstantLR(made, factor=1.0),
        accelerator=accelerator,
        settings=Settings(epochs=4, batch_size=8, device="cpu", **settings),
        train=batches,
        evaluations={},
        score=unread,
        headline="accuracy",
        tracker=unread,
        sparse_steps=sparse,
    )
    torch.manual_seed(1)
    return Trained(setup, pruners)


def assert_same_training(sparse: Trained, dense: Trained, tolerance: float = 1e-4) -> None:
    """Masks are equal after every step, and weights up to rounding.

    The gradient of a key's bias is rounding alone, which Adam makes as large as any.
    """
    for step, (masks, wanted) in enumerate(zip(sparse.masks, dense.masks, strict=True)):
        assert masks.keys() == wanted.keys(), step
        for name, mask in masks.items():
            assert torch.equal(mask, wanted[name]), f"step {step}: {name}"
    for name, mask in sparse.masks[-1].items():
        assert not sparse.weights[name][~mask].any(), name
    torch.testing.assert_close(torch.tensor(sparse.losses), torch.tensor(dense.losses), rtol=tolerance, atol=tolerance)
    for name, weight in sparse.weights.items():
        if not name.endswith("key.bias"):
            error, size = (weight - dense.weights[name]).norm(), dense.weights[name].norm()
            assert error <= tolerance * size, f"{name}: {error} of {size}"


def live_share(masks: Sequence[Tensor]) -> float:
    """The share of weights in live blocks of 4x1."""
    total = sum(mask.numel() for mask in masks)
    return sum(4 * int(m.view(-1, 4, m.shape[1]).any(1).sum()) for m in masks) / total
