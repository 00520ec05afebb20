"""Optimizer steps: accumulated batches of any sizes give the gradient of one batch of all their examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from family_helpers import SIZES, model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import TWO_CLASSES
from torch import nn

from hydraprune.data.batches import Batch, Batches
from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples
from hydraprune.data.labels import CLASSES
from hydraprune.models.tiny import TinyModel
from hydraprune.training.clock import Clock
from hydraprune.training.distillation import Distiller, HiddenStates, Logits, NoDistillation
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.settings import Settings
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.step import take_step
from hydraprune.training.teachers import NoTeacher

TINY = TinyModel("tiny", 32, 1, 2, 32)
TEXTS = [("good food " * (1 + place % 4),) for place in range(12)]
DATA = encode(TINY.tokenizer(), Examples(TEXTS, [place % 2 for place in range(12)]), 32, CLASSES)


class Online(NoTeacher):
    """Another model of the same sizes, run in every step."""

    def __init__(self, distiller: Distiller) -> None:
        torch.manual_seed(1)
        self.model, self.distiller = TINY.load(TWO_CLASSES).eval(), distiller

    def outputs(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return self.distiller.teacher_outputs(self.model, batch)


def weights_after_step(distiller: Distiller, sizes: list[int]) -> dict[str, torch.Tensor]:
    """The weights after one step with batches of these sizes."""
    torch.manual_seed(0)
    model = TINY.load(TWO_CLASSES).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    unread: Any = None
    batches = Batches(DATA, len(TEXTS))
    setup = TrainingSetup(
        model=model,
        distiller=distiller,
        teacher=Online(distiller) if distiller.needs_teacher else NoTeacher(),
        pruners=(),
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        accelerator=Accelerator(cpu=True),
        settings=Settings(epochs=1, batch_size=4, device="cpu"),
        train=batches,
        evaluations={},
        score=unread,
        headline="accuracy",
        tracker=unread,
    )
    parts = torch.split(torch.arange(sum(sizes)), sizes)
    assert take_step(setup, [batches.batch(part) for part in parts], 0, Clock()) is not None
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("distiller", [NoDistillation(), Logits(), HiddenStates(2.0)], ids=lambda d: type(d).__name__)
@settings(max_examples=6)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_every_example_weighs_the_same(distiller: Distiller, sizes: list[int]) -> None:
    whole, parts = weights_after_step(distiller, [sum(sizes)]), weights_after_step(distiller, sizes)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", SIZES)
def test_no_normalisation_weight_of_any_family_decays(kind: str) -> None:
    model = model_of(kind)
    decayed, undecayed = ({id(p) for p in group["params"]} for group in decay_groups(model))
    weights = {id(weight): (name, weight) for name, weight in model.named_parameters() if weight.requires_grad}
    assert decayed | undecayed == set(weights)
    assert not any("norm" in weights[key][0].lower() or weights[key][0].endswith("bias") for key in decayed)
    assert all(weights[key][1].dim() <= 1 or weights[key][0].endswith("bias") for key in undecayed)
    matrices = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Embedding))]
    assert {id(weight) for weight in matrices if weight.requires_grad} <= decayed
