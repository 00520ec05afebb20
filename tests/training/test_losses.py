"""Losses against hand computations, parameter groups, learning rates, steps per epoch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from data_helpers import encoded_of
from torch import nn
from torch.nn import functional as F

from hydraprune.data.batches import Batch, Batches, Encoded
from hydraprune.sparsity import SparsityError
from hydraprune.training.distillation import Distiller, HiddenStates, Logits, NoDistillation, task_loss
from hydraprune.training.learning_rate import constant, cosine, linear
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.settings import Settings
from hydraprune.training.teachers import OnlineTeacher


class Network(nn.Module):
    """Outputs its constructor's arguments, times a weight."""

    def __init__(self, hidden: torch.Tensor, logits: torch.Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.hidden, self.logits = hidden, logits
        self.base_model = Encoder(self) if type(self) is Network else None

    def forward(self, **_: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits * self.scale)


class Encoder(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.output = lambda: network.hidden * network.scale

    def forward(self, **_: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.output())


def batch(labels: torch.Tensor) -> Batch:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    return Batch({"input_ids": mask, "attention_mask": mask}, labels, torch.arange(2), mask, 2.0)


STUDENT = Network(torch.arange(24.0).reshape(2, 3, 4), torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
TEACHER = Network(torch.full((2, 3, 4), 3.0), torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
LABELS = torch.tensor([0, 1])


def test_the_hidden_state_loss_averages_over_real_tokens_or_all_positions() -> None:
    squares = (STUDENT.hidden - TEACHER.hidden).square()
    for padding, expected in ((True, squares.mean()), (False, torch.cat([squares[0], squares[1, :1]]).mean())):
        distiller = HiddenStates(5.0, padding)
        outputs = OnlineTeacher(TEACHER, distiller).outputs(batch(LABELS))
        loss = distiller.loss(STUDENT, batch(LABELS), outputs)
        assert float(loss.detach()) == pytest.approx(5 * float(expected))


def test_the_logit_loss_matches_a_hand_computation() -> None:
    distiller = Logits(weight=0.7, temperature=3.0)
    outputs = OnlineTeacher(TEACHER, distiller).outputs(batch(LABELS))
    p, q = (F.softmax(n.logits / 3, -1) for n in (TEACHER, STUDENT))
    kl = (p * (p / q).log()).sum(-1).mean()
    expected = 0.7 * 9 * kl + 0.3 * F.cross_entropy(STUDENT.logits, LABELS)
    assert float(distiller.loss(STUDENT, batch(LABELS), outputs)) == pytest.approx(float(expected))


def test_the_task_loss_is_cross_entropy_or_squared_error() -> None:
    loss = NoDistillation().loss(STUDENT, batch(LABELS), None)
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(STUDENT.logits, LABELS)))
    assert float(task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))) == pytest.approx(2.5)


def test_a_teacher_is_frozen() -> None:
    teacher = Network(torch.ones(2, 3, 4), torch.ones(2, 2))
    outputs = OnlineTeacher(teacher.train(), HiddenStates(1.0)).outputs(batch(LABELS))
    assert not teacher.training
    assert not outputs.requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    for made in (HiddenStates, Logits):
        with pytest.raises(ValueError, match=f"weight={weight}"):
            made(weight)
    with pytest.raises(ValueError, match=r"weight=1\.5"):
        Logits(1.5)


class Agreement(Distiller):
    """A distillation loss of the user: 1 - cosine similarity of student and teacher logits."""

    def teacher_outputs(self, teacher: nn.Module, batch: Batch) -> torch.Tensor:
        return teacher(**batch.inputs).logits

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: torch.Tensor | None) -> torch.Tensor:
        return 1 - F.cosine_similarity(student(**batch.inputs).logits, teacher_outputs).mean()


class LabelSmoothing(Distiller):
    """A loss of the user without a teacher."""

    needs_teacher = False

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: torch.Tensor | None) -> torch.Tensor:
        return F.cross_entropy(student(**batch.inputs).logits, batch.labels, label_smoothing=0.1)


def test_a_distillation_loss_needs_two_methods() -> None:
    distiller = Agreement()
    outputs = OnlineTeacher(TEACHER, distiller).outputs(batch(LABELS))
    cosine = F.cosine_similarity(STUDENT.logits, TEACHER.logits).mean()
    assert float(distiller.loss(STUDENT, batch(LABELS), outputs).detach()) == pytest.approx(float(1 - cosine))
    assert (distiller.needs_teacher, distiller.teacher, distiller.misfit(None, None)) == (True, None, None)
    assert not any((distiller.keeps_head, distiller.per_token, distiller.cacheable, distiller.online))


def test_a_loss_without_a_teacher_needs_one_method() -> None:
    distiller = LabelSmoothing()
    assert not distiller.needs_teacher
    expected = F.cross_entropy(STUDENT.logits, LABELS, label_smoothing=0.1)
    assert float(distiller.loss(STUDENT, batch(LABELS), None).detach()) == pytest.approx(float(expected))
    with pytest.raises(NotImplementedError, match="LabelSmoothing uses no teacher"):
        distiller.teacher_outputs(TEACHER, batch(LABELS))


def encoded(lengths: list[int]) -> Encoded:
    ids = torch.cat([torch.arange(1, n + 1) for n in lengths]).int()
    return encoded_of(lengths, ids, pad_id=99, token_type_ids=torch.ones_like(ids))


def test_batches_are_padded_to_their_longest() -> None:
    (only,) = Batches(encoded([2, 4, 1]), 8).epoch()
    # Without a seed from the longest to the shortest.
    assert only.labels.tolist() == only.indices.tolist() == [1, 0, 2]
    assert only.inputs["input_ids"].tolist() == [[1, 2, 3, 4], [1, 2, 99, 99], [1, 99, 99, 99]]
    assert only.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert only.inputs["token_type_ids"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]


def test_every_epoch_has_all_examples_once_in_its_own_order() -> None:
    batches = Batches(encoded([3] * 50), 8, shuffle_seed=3)
    orders = [[int(i) for b in batches.epoch(e) for i in b.labels] for e in (0, 1, 0)]
    assert len(batches) == 7
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != [int(i) for b in Batches(encoded([3] * 50), 8, shuffle_seed=4).epoch(0) for i in b.labels]


def test_biases_and_norms_are_not_decayed() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, undecayed = decay_groups(model)
    assert [p.shape for p in decayed["params"]] == [(5, 4), (4, 4)]
    assert [p.shape for p in undecayed["params"]] == [(4,), (4,), (4,)]
    assert undecayed["weight_decay"] == 0.0


def rates(make: object, **more: object) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, steps=10, steps_per_epoch=5, **more)  # type: ignore[operator]
    found = []
    for _ in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_learning_rate_schedules() -> None:
    assert rates(constant) == [1.0] * 11
    assert rates(linear) == pytest.approx([1 - i / 10 for i in range(11)])
    assert rates(linear, warmup="1ep")[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates(cosine)[5] == pytest.approx(0.5)
    for make in (linear, cosine):
        assert rates(make)[-1] == pytest.approx(0.0)
    with pytest.raises(SparsityError, match="warmup=soon"):
        rates(linear, warmup="soon")


def test_the_last_step_of_an_epoch_may_be_partial() -> None:
    settings = Settings(epochs=1, batch_size=16, accumulation=4)
    assert [settings.steps_per_epoch(n) for n in (1, 64, 65, 3668)] == [1, 1, 2, 58]
