"""Encoded data sets in memory, and the padded batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hydraprune.data.labels import CLASSES, IGNORED, Labels


@dataclass(frozen=True)
class Encoded:
    """A tokenized data set: the token ids of all examples, concatenated without padding.

    Args:
        inputs: model argument -> integers [tokens of all examples]; includes `input_ids`.
        offsets: [examples + 1]; example i has the tokens offsets[i] .. offsets[i + 1].
        labels: what `head` made of the labels: [examples], or [tokens of all examples].
        pad_id: padding value of `input_ids`; other inputs are padded with 0.
        truncated: examples that had more tokens than the maximal length.
        head: what a model predicts for them.
    """

    inputs: Mapping[str, Tensor]
    offsets: Tensor
    labels: Tensor
    pad_id: int
    truncated: int = 0
    head: Labels = CLASSES

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Tokens of every example, [examples]."""
        return self.offsets.diff()

    def token_indices(self, examples: Tensor, few_widths: int = 0) -> tuple[Tensor, Tensor]:
        """Indices of the tokens of some examples in the flat tensors, padded to the longest example.

        Args:
            examples: [batch], their numbers.
            few_widths: as in `Batches`.

        Returns:
            (indices, mask), each [batch, longest]; the mask is True on real tokens. The index of a
            padded position is that of another token of its example, or of another example if it has none.
        """
        starts = self.offsets[examples].unsqueeze(1)
        lengths = self.offsets[examples + 1].unsqueeze(1) - starts
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
    """Padded examples on one device.

    Args:
        inputs: model argument -> [batch, length]; `attention_mask` is 1 on real tokens.
        labels: [batch], or [batch, length] where each token has one.
        indices: [batch], the examples' numbers in their data set (on the CPU).
        token_indices: [batch, length], see `Encoded.token_indices` (on the CPU).
        mean_length: tokens per example of the whole data set.
        head: what a model predicts for the examples.
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
    """A data set in batches, each padded to its longest example.

    Args:
        shuffle_seed: the order of epoch e depends on (shuffle_seed, e) alone, so that a resumed run
            sees the same batches as an uninterrupted one. None: from the longest example to the
            shortest, which pads least and shows at once whether memory suffices.
        length_grouping: when shuffling, examples are drawn at random for this many batches at a
            time, grouped by length among these, and the batches shuffled. At most a quarter of all
            batches, or the same examples would share a batch in every epoch. 1: no grouping.
        few_widths: pad to one of few widths, at most this one; 0: to the longest example. For bf16
            on a CPU, where oneDNN compiles and caches code for every shape of a matrix product, and
            for CUDA graphs; costs some 2 % more tokens.
    """

    data: Encoded
    batch_size: int
    shuffle_seed: int | None = None
    length_grouping: int = 1
    few_widths: int = 0

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int = 0, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `first` on, counted from 0."""
        for indices in self.order(number)[first:]:
            yield self.batch(indices)

    def order(self, number: int = 0) -> list[Tensor]:
        """The examples of every batch of one epoch, [batch] each."""
        lengths = self.data.lengths
        if self.shuffle_seed is None:
            return list(torch.split(lengths.argsort(descending=True, stable=True), self.batch_size))
        generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + number)
        order = torch.randperm(len(self.data), generator=generator)
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
        """The batch of these examples, [batch] numbers."""
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
