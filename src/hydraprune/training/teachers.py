"""Where do a teacher's answers come from? From the teacher, or from what it said before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batch, Batches, Encoded, send
from hydraprune.training.distillation import Distiller
from hydraprune.training.fixed_shape_batches import Group, Groups

# Groups asked about at once: in bf16 all of them share the weights' conversion.
_TOGETHER = 16


class Teacher(Protocol):
    """Where a teacher's answers come from."""

    def answers(self, batch: Batch) -> Tensor | None: ...


class NoTeacher:
    """Nobody to ask."""

    def answers(self, batch: Batch) -> Tensor | None:
        return None


def is_exact(device: torch.device) -> bool:
    """Whether a teacher there is asked in `Groups`, so that an answer has the same bits in every company."""
    return device.type == "cpu"


class OnlineTeacher:
    """A frozen model, asked anew for every batch, as it is."""

    def __init__(self, model: nn.Module, distiller: Distiller) -> None:
        self.model = model.eval().requires_grad_(False)
        self.distiller = distiller

    @torch.no_grad()
    def answers(self, batch: Batch) -> Tensor | None:
        return self.distiller.ask(self.model, batch)


class GroupedTeacher:
    """A frozen model on a CPU, asked anew for every batch: what it says of an example always has the same bits.

    Args:
        data: the examples that it will be asked about; see `Groups`.
    """

    def __init__(self, model: nn.Module, distiller: Distiller, data: Encoded) -> None:
        # No gradient is ever computed. But autocast converts a weight once, not for every group, only if it wants one.
        self.model = model.eval().requires_grad_(True)
        self.distiller = distiller
        self.data = data
        self.groups = Groups(data.lengths)

    def answers(self, batch: Batch) -> Tensor:
        """[batch, length, features], of another token of the example on padded positions, or [batch, features]."""
        examples = batch.indices.tolist()
        said = {example: rows for group in self.groups.of(examples) for example, rows in self.ask(group)}
        rows = torch.cat([said[example] for example in examples])
        return _padded(rows, self.data.offsets, batch) if self.distiller.per_token else rows

    @torch.no_grad()
    def ask(self, group: Group) -> list[tuple[int, Tensor]]:
        """Per example asked for (its number, its answers [n, features], float32)."""
        said = self.distiller.ask(self.model, Batches(self.data, 1).batch(torch.tensor(group.examples))).float()
        per_token = self.distiller.per_token
        lengths = self.data.lengths[group.examples].tolist()
        return [
            (example, said[place, : lengths[place]] if per_token else said[place : place + 1])
            for place, example in group.asked.items()
        ]


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
        return send(_padded(taken, self.offsets, batch) if self.per_token else taken, batch.labels.device)


def _padded(rows: Tensor, offsets: Tensor, batch: Batch) -> Tensor:
    """A batch's tokens, which lie one example behind the other in `rows`, as [batch, length, features]."""
    first = offsets[batch.indices]
    lengths = offsets[batch.indices + 1] - first
    starts = lengths.cumsum(0) - lengths
    # From where its tokens lie in the data to where they lie in what was taken.
    places = batch.places - first.unsqueeze(1) + starts.unsqueeze(1)
    return rows[places.clamp_(0, len(rows) - 1)]


def recite(
    model: nn.Module, distiller: Distiller, batches: Batches, accelerator: Accelerator
) -> Iterator[tuple[int, Tensor]]:
    """All that a teacher has to say of a data set, the longest examples first.

    On a CPU it is asked as a `GroupedTeacher` is in training; elsewhere in `batches`.

    Yields:
        Per example (its number, its answers [n, features], float32 on the CPU): one for each of its
        tokens or, from distillers that ask per example, one.
    """
    if is_exact(accelerator.device):
        grouped = GroupedTeacher(model, distiller, batches.data)
        groups = grouped.groups.of(batches.data.lengths.argsort(descending=True, stable=True).tolist())
        for start in range(0, len(groups), _TOGETHER):
            with accelerator.autocast():
                said = [answer for group in groups[start : start + _TOGETHER] for answer in grouped.ask(group)]
            yield from said
        return
    teacher, lengths = OnlineTeacher(model, distiller), batches.data.lengths
    for batch in batches.epoch():
        with accelerator.autocast():
            answers = teacher.answers(batch.to(accelerator.device))
        assert answers is not None
        answers = answers.float().cpu()
        for place, example in enumerate(batch.indices.tolist()):
            own = answers[place, : int(lengths[example])] if distiller.per_token else answers[place : place + 1]
            yield example, own
