"""Where do a teacher's answers come from? From the teacher, or from what it said before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.training.batches import Batch, Batches, send
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


class Answers(Protocol):
    """What a model once said, row by row: one row for a token, or one for an example."""

    def take(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """The rows first .. end of every span, one behind the other: [rows, features], a copy."""


@dataclass(frozen=True)
class HeldAnswers:
    """Answers in memory: [rows, features]."""

    rows: Tensor

    def take(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """See `Answers`."""
        return torch.cat([self.rows[first:end] for first, end in spans])


@dataclass(frozen=True)
class StoredTeacher:
    """What a frozen model once said of every example.

    Args:
        offsets: [examples + 1]; of example i it said the rows offsets[i] .. offsets[i + 1].
        per_token: whether these rows are its tokens.
    """

    said: Answers
    offsets: Tensor
    per_token: bool

    def answers(self, batch: Batch) -> Tensor:
        """[batch, length, features], of another token of the example on padded positions, or [batch, features]."""
        first, end = self.offsets[batch.indices], self.offsets[batch.indices + 1]
        taken = self.said.take(list(zip(first.tolist(), end.tolist(), strict=True)))
        if self.per_token:
            lengths = end - first
            starts = lengths.cumsum(0) - lengths
            # From where its tokens lie in the data to where they lie in what was taken.
            places = batch.places - first.unsqueeze(1) + starts.unsqueeze(1)
            taken = taken[places.clamp_(0, len(taken) - 1)]
        return send(taken, batch.labels.device)


def recite(
    model: nn.Module, distiller: Distiller, batches: Batches, accelerator: Accelerator
) -> Iterator[tuple[int, Tensor]]:
    """All that a teacher has to say of a data set, asked in batches of examples of like length.

    Yields:
        Per example (its first row, its answers [n, features], float32 on the CPU): a row is a token
        in the flat tensors of `data`, or an example, for distillers that ask per example.
    """
    teacher = OnlineTeacher(model, distiller)
    data = batches.data
    for batch in batches.epoch():
        with accelerator.autocast():
            answers = teacher.answers(batch.to(accelerator.device))
        assert answers is not None
        answers = answers.float().cpu()
        for place, index in enumerate(batch.indices.tolist()):
            if distiller.per_token:
                first, end = data.offsets[index : index + 2].tolist()
                yield first, answers[place, : end - first]
            else:
                yield index, answers[place : place + 1]
