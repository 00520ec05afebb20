"""Several processes of one run: the parts of a batch add up to the whole, for every kind of label and loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hydraprune.data.batches import Batches
from hydraprune.data.encoding import encode
from hydraprune.data.tagging import ToyTagTask
from hydraprune.data.tasks import ToyTask
from hydraprune.data.toy_tasks import ToyChoiceTask, ToyMaskedTextTask, ToyQuestionTask, ToyTextTask
from hydraprune.models.tiny import TinyDecoder, TinyModel
from hydraprune.training.distillation import Distiller, HiddenStates, Logits, NoDistillation
from hydraprune.training.processes import Processes

TASKS = {
    "classes": ToyTask,
    "tags": ToyTagTask,
    "questions": ToyQuestionTask,
    "choices": ToyChoiceTask,
    "hidden tokens": ToyMaskedTextTask,
    "text": ToyTextTask,
}
LOSSES: tuple[Distiller, ...] = (
    NoDistillation(),
    Logits(),
    HiddenStates(weight=2.0),
    HiddenStates(weight=2.0, padding=True),
)


@pytest.fixture(scope="module", params=sorted(TASKS))
def material(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """(student, teacher, encoded data) of a task."""
    name = request.param
    source = (TinyDecoder if name == "text" else TinyModel)("tiny", 32, 1, 2, 32)
    data = TASKS[name](name, 24, 8, 0, 32).load()
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(source.load(data.labels).eval())
    return models[0], models[1], encode(source.tokenizer(), data.train, 32, data.labels)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 5),
    size=st.integers(1, 7),
    number=st.integers(0, 50),
    distiller=st.sampled_from(LOSSES),
)
def test_losses_of_parts_add_up(
    count: int, size: int, number: int, distiller: Distiller, material: tuple[Any, Any, Any]
) -> None:
    student, teacher, data = material
    batches = Batches(data, size, shuffle_seed=0)
    order = batches.order()
    whole = batches.batch(order[number % len(order)])

    def loss(batch: Any) -> torch.Tensor:
        outputs = distiller.teacher_outputs(teacher, batch) if distiller.needs_teacher else None
        return distiller.loss(student, batch, outputs)

    with torch.no_grad():
        total = torch.zeros(())
        parts = [part for rank in range(count) if (part := Processes(rank, count).share(whole)) is not None]
        for part in parts:
            share = distiller.counted(part) / distiller.counted(whole) if distiller.counted(whole) else 0.0
            total += loss(part) * share if share else 0.0
        torch.testing.assert_close(total, loss(whole), rtol=1e-5, atol=1e-6)
    assert sorted(row for part in parts for row in part.indices.tolist()) == sorted(whole.indices.tolist())
    assert all(part.inputs["input_ids"].shape[1] == whole.inputs["input_ids"].shape[1] for part in parts)


def test_one_process_takes_the_batch_itself(material: tuple[Any, Any, Any]) -> None:
    batch = next(Batches(material[2], 4).epoch())
    alone = Processes.current()
    assert alone == Processes(0, 1)
    assert alone.share(batch) is batch
    assert alone.gather([1, 2]) == [1, 2]
    assert alone.hand_out("x") == "x"
    state = torch.get_rng_state()
    alone.seed_step(0, 3)
    assert torch.equal(state, torch.get_rng_state())
