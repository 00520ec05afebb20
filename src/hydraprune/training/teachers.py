"""Where do a teacher's answers come from? From the teacher, or from what it said before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class StoredTeacher:
    """What a frozen model once said of every example.

    Args:
        said: [tokens of all examples, features] if `per_token`, else [examples, features].
        release: called with the bytes of every batch taken from `said`, which may be a mapped file.
    """

    def __init__(self, said: Tensor, per_token: bool, release: Callable[[int], None] = lambda _: None) -> None:
        self.said, self.per_token, self.release = said, per_token, release

    def answers(self, batch: Batch) -> Tensor:
        """[batch, length, features], of another token of the example on padded positions, or [batch, features]."""
        taken = self.said[batch.places if self.per_token else batch.indices]
        self.release(taken.nbytes)
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
