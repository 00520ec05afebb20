"""Token ids in memory, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Encoded:
    """Examples as token ids, not padded.

    Args:
        inputs: model argument -> per example a 1-D tensor; `input_ids` is among them.
        labels: [examples], integers or, for regression, floats.
        pad_id: what `input_ids` is padded with; everything else is padded with 0.
    """

    inputs: Mapping[str, Sequence[Tensor]]
    labels: Tensor
    pad_id: int

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Batch:
    """Padded examples on one device.

    Args:
        inputs: model argument -> [batch, length]; `attention_mask` is 1 on real tokens.
        labels: [batch].
        indices: [batch], the examples' places in their data set (on the CPU).
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> Batch:
        """This batch on `device`."""
        moved = {key: value.to(device, non_blocking=True) for key, value in self.inputs.items()}
        return Batch(moved, self.labels.to(device, non_blocking=True), self.indices)


@dataclass(frozen=True)
class Batches:
    """A data set in batches, padded to their longest example.

    Args:
        shuffle_seed: the order of epoch e follows from (shuffle_seed, e) alone, so that a resumed
            run sees what the uninterrupted one would have; None keeps the order of the data.
    """

    data: Encoded
    batch_size: int
    shuffle_seed: int | None = None

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""
        order = torch.arange(len(self.data))
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + number)
            order = torch.randperm(len(self.data), generator=generator)
        for indices in torch.split(order, self.batch_size):
            yield self._batch(indices)

    def _batch(self, indices: Tensor) -> Batch:
        rows = indices.tolist()
        inputs = {
            key: pad_sequence(
                [values[row] for row in rows],
                batch_first=True,
                padding_value=self.data.pad_id if key == "input_ids" else 0,
            )
            for key, values in self.data.inputs.items()
        }
        lengths = torch.tensor([len(self.data.inputs["input_ids"][row]) for row in rows])
        inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return Batch(inputs, self.data.labels[indices], indices)
