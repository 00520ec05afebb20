"""Where do a teacher's answers come from? From the teacher, or from what it said before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.training.batches import Batch, Batches, Encoded, send
from hydraprune.training.distillation import Distiller


class Teacher(Protocol):
    """Where a teacher's answers come from."""

    def answers(self, batch: Batch) -> Tensor | None: ...


class NoTeacher:
    """Nobody to ask."""

    def answers(self, batch: Batch) -> Tensor | None:
        return None


class OnlineTeacher:
    """A frozen model, asked anew for every batch."""

    def __init__(self, model: nn.Module, distiller: Distiller) -> None:
        self.model = model.eval().requires_grad_(False)
        self.distiller = distiller

    @torch.no_grad()
    def answers(self, batch: Batch) -> Tensor | None:
        return self.distiller.ask(self.model, batch)


@dataclass(frozen=True)
class StoredTeacher:
    """What a frozen model once said of every example.

    Args:
        said: [tokens of all examples, features] when `data` is given, else [examples, features].
            May be a file mapped into memory.
        data: the examples, for answers that are one per token.
    """

    said: Tensor
    data: Encoded | None

    def answers(self, batch: Batch) -> Tensor:
        """[batch, length, features], of another token of the example on padded positions, or [batch, features]."""
        device = batch.labels.device
        if self.data is None:
            return send(self.said[batch.indices], device)
        return send(self.said[self.data.places(batch.indices)[0]], device)


def recite(
    model: nn.Module, distiller: Distiller, data: Encoded, batch_size: int, accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor]]:
    """All that a teacher has to say of a data set, in batches of examples of like length.

    Yields:
        (places [n], answers [n, features], float32 on the CPU). A place is that of a real token in
        the flat tensors of `data`, or of an example, for distillers that ask per example.
    """
    teacher = OnlineTeacher(model, distiller)
    for batch in Batches(data, batch_size).epoch():
        with accelerator.autocast():
            answers = teacher.answers(batch.to(accelerator.device))
        assert answers is not None
        answers = answers.float().cpu()
        if not distiller.per_token:
            yield batch.indices, answers
            continue
        places, real = data.places(batch.indices)
        yield places[real], answers[real]
