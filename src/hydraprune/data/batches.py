"""Encoded data sets in memory, and the padded batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hydraprune.data.examples import NO_EXAMPLES, Examples
from hydraprune.data.labels import CLASSES, IGNORED, Labels


@dataclass(frozen=True)
class Encoded:
    """A tokenized data set: rows of tokens, concatenated without padding. A row is what a model reads at once.

    A text has one row; a long context has several, and so has a question with choices.

    Args:
        inputs: model argument -> integers [tokens of all rows]; includes `input_ids`.
        offsets: [rows + 1]; row i has the tokens offsets[i] .. offsets[i + 1].
        labels: what `head` made of the labels: [rows, ...], or [tokens of all rows].
        pad_id: padding value of `input_ids`; other inputs are padded with 0.
        truncated: examples of which tokens were left out.
        head: what a model predicts for them.
        beside: what `head` keeps beside the inputs, see `Rows`.
        examples: that were tokenized.
    """

    inputs: Mapping[str, Tensor]
    offsets: Tensor
    labels: Tensor
    pad_id: int
    truncated: int = 0
    head: Labels = CLASSES
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    examples: Examples = NO_EXAMPLES

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def groups(self) -> int:
        """Rows, those that belong together counted once: what batches are counted in."""
        return len(self) // self.head.group

    @property
    def lengths(self) -> Tensor:
        """Tokens of every row, [rows]."""
        return self.offsets.diff()

    def rows_of(self, groups: Tensor) -> Tensor:
        """The numbers of the rows of some groups: [groups] -> [rows]."""
        size = self.head.group
        return groups if size == 1 else (groups.unsqueeze(1) * size + torch.arange(size)).flatten()

    def token_indices(self, rows: Tensor, few_widths: int = 0) -> tuple[Tensor, Tensor]:
        """Indices of the tokens of some rows in the flat tensors, padded to the longest.

        Args:
            rows: [batch], their numbers.
            few_widths: as in `Batches`.

        Returns:
            (indices, mask), each [batch, longest]; the mask is True on real tokens. The index of a
            padded position is that of another token of its row, or of another row if it has none.
        """
        starts = self.offsets[rows].unsqueeze(1)
        lengths = self.offsets[rows + 1].unsqueeze(1) - starts
        width = max(1, int(lengths.max()))
        positions = torch.arange(min(_bucket(width), max(width, few_widths)) if few_widths else width).unsqueeze(0)
        mask = positions < lengths
        return (starts + positions * mask).clamp_(max=int(self.offsets[-1]) - 1), mask


def _bucket(width: int) -> int:
    """From 32 up: the next of eight equal steps to the next power of two."""
    step = max(1, 1 << (width.bit_length() - 4)) if width >= 32 else 1
    return -(-width // step) * step


@dataclass(frozen=True)
class Batch:
    """Padded rows on one device.

    Args:
        inputs: model argument -> [batch, length]; `attention_mask` is 1 on real tokens.
        labels: [batch, ...], or [batch, length] where each token has one.
        indices: [batch], the rows' numbers in their data set (on the CPU).
        token_indices: [batch, length], see `Encoded.token_indices` (on the CPU).
        mean_length: tokens per row of the whole data set.
        head: what a model predicts for the rows.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    indices: Tensor
    token_indices: Tensor
    mean_length: float
    head: Labels = CLASSES

    @property
    def tokens(self) -> int:
        """Tokens, padding included."""
        return self.token_indices.numel()

    @property
    def mask(self) -> Tensor:
        """[batch, length], True on real tokens."""
        return self.inputs["attention_mask"].bool()

    @property
    def counted(self) -> int:
        """What the losses are means over: rows, or tokens that have a target where each has one."""
        return int((self.labels != IGNORED).sum()) if self.head.per_token else len(self.labels)

    def part(self, examples: Tensor) -> Batch:
        """The rows of some examples, by their places in this batch; as wide as the whole."""
        size = self.head.group
        rows = (examples.unsqueeze(1) * size + torch.arange(size)).flatten()
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        return replace(
            self,
            inputs=inputs,
            labels=self.labels[rows],
            indices=self.indices[rows],
            token_indices=self.token_indices[rows],
        )

    def outputs(self, model: nn.Module) -> Tensor:
        """The outputs of a model's head, see `Labels.outputs`."""
        return self.head.outputs(model, self.inputs)

    def loss(self, outputs: Tensor) -> Tensor:
        """The task's own loss of some outputs, a scalar."""
        return self.head.loss(outputs, self.labels, self.mask)

    def soft_loss(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """KL(teacher || student) of some outputs at a temperature, a scalar."""
        return self.head.soft_loss(outputs, teacher, temperature, self.labels, self.mask)

    def to(self, device: torch.device) -> Batch:
        """This batch on `device`; the host does not wait for the copy."""
        moved = {key: send(value, device) for key, value in self.inputs.items()}
        return replace(self, inputs=moved, labels=send(self.labels, device))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on `device`, made without blocking the host."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class Batches:
    """A data set in batches, each padded to its longest row.

    Args:
        batch_size: rows; the choices of a question count as one.
        shuffle_seed: the order of epoch e depends on (shuffle_seed, e) alone, so that a resumed run
            sees the same batches as an uninterrupted one. None: from the longest example to the
            shortest, which pads least and shows at once whether memory suffices.
        length_grouping: when shuffling, examples are drawn at random for this many batches at a
            time, grouped by length among these, and the batches shuffled. At most a quarter of all
            batches, or the same examples would share a batch in every epoch. 1: no grouping.
        few_widths: pad to one of few widths, at most this one; 0: to the longest row. For bf16
            on a CPU, where oneDNN compiles and caches code for every shape of a matrix product, and
            for CUDA graphs; costs some 2 % more tokens.
    """

    data: Encoded
    batch_size: int
    shuffle_seed: int | None = None
    length_grouping: int = 1
    few_widths: int = 0

    def __len__(self) -> int:
        return -(-self.data.groups // self.batch_size)

    def epoch(self, number: int = 0, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `first` on, counted from 0."""
        for indices in self.order(number)[first:]:
            yield self.batch(indices)

    def order(self, number: int = 0) -> list[Tensor]:
        """The rows of every batch of one epoch, [batch] each."""
        return [self.data.rows_of(groups) for groups in self._groups(number)]

    def _groups(self, number: int) -> list[Tensor]:
        lengths = self.data.lengths.view(-1, self.data.head.group).amax(1)
        if self.shuffle_seed is None:
            return list(torch.split(lengths.argsort(descending=True, stable=True), self.batch_size))
        generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + number)
        order = torch.randperm(self.data.groups, generator=generator)
        grouping = min(self.length_grouping, len(self) // 4)
        if grouping <= 1:
            return list(torch.split(order, self.batch_size))
        batches = [
            batch
            for drawn in torch.split(order, self.batch_size * grouping)
            for batch in torch.split(drawn[lengths[drawn].argsort(stable=True)], self.batch_size)
        ]
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]

    def batch(self, indices: Tensor) -> Batch:
        """The batch of these rows, [batch] numbers."""
        token_indices, mask = self.data.token_indices(indices, self.few_widths)
        inputs = {
            key: values[token_indices].long().masked_fill_(~mask, self.data.pad_id if key == "input_ids" else 0)
            for key, values in self.data.inputs.items()
        }
        inputs["attention_mask"] = mask.long()
        mean = int(self.data.offsets[-1]) / len(self.data)
        head = self.data.head
        labels = self.data.labels[token_indices if head.per_token else indices]
        if head.per_token:
            labels = labels.masked_fill(~mask, IGNORED)
        return Batch(inputs, labels, indices, token_indices, mean, head)
