"""Calibration batches for methods that prune without training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hydraprune.data.batches import Batches, Encoded
from hydraprune.runs.setup import accelerator_for
from hydraprune.sparsity.posttraining.activations import gather, squares
from hydraprune.training.calibration import TrainCalibration
from hydraprune.training.distillation import task_loss
from hydraprune.training.settings import Settings


class Tagger(nn.Module):
    """A bag of words with dropout; records its modes and inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.drop, self.head = nn.Embedding(20, 4), nn.Dropout(0.5), nn.Linear(4, 2)
        self.modes: list[bool] = []
        self.ids: list[Tensor] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        self.modes.append(self.training)
        self.ids.append(input_ids)
        tokens = self.head(self.drop(self.words(input_ids)))
        return SimpleNamespace(logits=(tokens * attention_mask.unsqueeze(-1)).sum(1))


@pytest.fixture
def train() -> Batches:
    """Ten sentences of one to ten words, in three batches."""
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(1, 11).cumsum(0)])
    ids = torch.arange(int(offsets[-1])) % 19 + 1
    return Batches(Encoded({"input_ids": ids}, offsets, torch.arange(10) % 2, 0), 4, shuffle_seed=3)


def calibration(model: nn.Module, train: Batches) -> Any:
    return TrainCalibration(model, train, accelerator_for(Settings(epochs=0, batch_size=4, device="cpu")))


@pytest.mark.parametrize("training", [True, False])
def test_calibration_runs_in_evaluation_mode_and_restores_the_mode(train: Batches, training: bool) -> None:
    model = Tagger().train(training)
    losses = [loss.detach() for loss in calibration(model, train)(2)]
    assert model.modes == [False, False]
    assert model.training is training
    model.eval()
    batches = list(train.epoch(0))[:2]
    assert all(torch.equal(seen, b.inputs["input_ids"]) for seen, b in zip(model.ids, batches, strict=True))
    for loss, batch in zip(losses, batches, strict=True):
        assert torch.equal(loss, task_loss(model(**batch.inputs).logits, batch.labels))
    model.train(training)
    interrupted = calibration(model, train)(2)
    next(interrupted)
    interrupted.close()
    assert model.training is training


def test_every_call_has_the_same_batches_and_at_most_an_epoch(train: Batches) -> None:
    model = Tagger()
    run = calibration(model, train)
    assert len(list(run(1))) == 1
    assert len(list(run(99))) == 3
    assert torch.equal(model.ids[0], model.ids[1])


def test_losses_have_gradients_where_these_are_enabled(train: Batches) -> None:
    run = calibration(Tagger(), train)
    assert all(loss.requires_grad for loss in run(2))
    with torch.no_grad():
        assert not any(loss.requires_grad for loss in run(2))


def test_padded_tokens_are_ignored(train: Batches) -> None:
    model = Tagger()
    (found,) = gather({"head.weight": model.head}, calibration(model, train), 99, squares)
    tokens = model.words(train.data.inputs["input_ids"]).detach()
    torch.testing.assert_close(found, tokens.square().sum(0).double(), check_dtype=False)
