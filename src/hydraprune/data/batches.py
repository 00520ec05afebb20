"""Token ids in memory, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """Examples as token ids, one behind the other without padding.

    Args:
        inputs: model argument -> flat integers [tokens of all examples]; `input_ids` is among them.
        offsets: [examples + 1]; example i has the tokens offsets[i] .. offsets[i + 1].
        labels: [examples], integers or, for regression, floats.
        pad_id: what `input_ids` is padded with; everything else is padded with 0.
    """

    inputs: Mapping[str, Tensor]
    offsets: Tensor
    labels: Tensor
    pad_id: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        """Tokens of every example, [examples]."""
        return self.offsets.diff()

    def places(self, indices: Tensor, few_widths: int = 0) -> tuple[Tensor, Tensor]:
        """Where the tokens of some examples lie, padded to the longest (see `Batches` for `few_widths`).

        Returns:
            (places in the flat tensors, whether there is a token at all), each [batch, longest]; a
            padded position has the place of a real token of its own or, without any, of another example.
        """
        starts = self.offsets[indices].unsqueeze(1)
        lengths = self.offsets[indices + 1].unsqueeze(1) - starts
        width = max(1, int(lengths.max()))
        positions = torch.arange(min(_rounded(width), max(width, few_widths)) if few_widths else width).unsqueeze(0)
        real = positions < lengths
        return (starts + positions * real).clamp_(max=int(self.offsets[-1]) - 1), real


def _rounded(width: int) -> int:
    """From 32 up to the next of eight equal steps to the next power of two."""
    step = max(1, 1 << (width.bit_length() - 4)) if width >= 32 else 1
    return -(-width // step) * step


@dataclass(frozen=True)
class Batch:
    """Padded examples on one device.

    Args:
        inputs: model argument -> [batch, length]; `attention_mask` is 1 on real tokens.
        labels: [batch].
        indices: [batch], the examples' places in their data set (on the CPU).
        places: [batch, length], the tokens' places in its flat tensors (on the CPU); see `Encoded.places`.
        mean_length: tokens per example of the whole data set.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    indices: Tensor
    places: Tensor
    mean_length: float

    def to(self, device: torch.device) -> Batch:
        """This batch on `device`; the host does not wait for the copy."""
        moved = {key: send(value, device) for key, value in self.inputs.items()}
        return replace(self, inputs=moved, labels=send(self.labels, device))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on `device` for which the host need not wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class Batches:
    """A data set in batches, padded to their longest example.

    Args:
        shuffle_seed: the order of epoch e follows from (shuffle_seed, e) alone, so that a resumed
            run sees what the uninterrupted one would have; None: from the longest example to the
            shortest, which pads least and finds out at once whether memory suffices.
        length_grouping: when shuffling, examples are drawn at random for this many batches at a
            time and grouped by length among these; the batches then come in random order. At most
            a quarter of all batches, or the same examples would meet in every epoch. 1: every batch
            is drawn at random.
        few_widths: pad to one of few widths, at most this one; 0: to the longest. For bf16 on a CPU,
            where oneDNN compiles and keeps code for every shape of a product; costs some 2 % more
            tokens.
    """

    data: Encoded
    batch_size: int
    shuffle_seed: int | None = None
    length_grouping: int = 1
    few_widths: int = 0

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int = 0, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from its `first` on, counted from 0."""
        for indices in self.order(number)[first:]:
            yield self.batch(indices)

    def order(self, number: int = 0) -> list[Tensor]:
        """Per batch of an epoch the indices of its examples."""
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
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def batch(self, indices: Tensor) -> Batch:
        """These examples."""
        places, real = self.data.places(indices, self.few_widths)
        inputs = {
            key: values[places].long().masked_fill_(~real, self.data.pad_id if key == "input_ids" else 0)
            for key, values in self.data.inputs.items()
        }
        inputs["attention_mask"] = real.long()
        mean = int(self.data.offsets[-1]) / len(self.data)
        return Batch(inputs, self.data.labels[indices], indices, places, mean)
