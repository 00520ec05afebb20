"""Teachers: where the outputs for a batch come from, a model that runs now or outputs that were stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batch, Batches, Encoded, send
from hydraprune.training.distillation import Distiller
from hydraprune.training.fixed_shape_batches import FixedShapeBatch, FixedShapeBatches

# Fixed-shape batches under one autocast: in bf16 all of them share the conversion of the weights.
_BATCHES_PER_AUTOCAST = 16


class Teacher(Protocol):
    """Gives a loss the teacher's outputs.

    Args:
        source: `online` (computed for every batch) or `stored`, for reports; None without a teacher. On a CPU both
            give the same bits; on an accelerator rounding differs.
    """

    source: ClassVar[str | None]

    def outputs(self, batch: Batch) -> Tensor | None:
        """Those of a batch, in the same order; None without a teacher."""


class NoTeacher:
    """For losses that use no teacher."""

    source: ClassVar[str | None] = None

    def outputs(self, batch: Batch) -> Tensor | None:
        return None


def is_batch_invariant(device: torch.device) -> bool:
    """Whether a teacher on this device runs in fixed-shape batches, so that outputs do not depend on the batch."""
    return device.type == "cpu"


class OnlineTeacher:
    """A frozen model that runs on every batch as it is."""

    source: ClassVar[str | None] = "online"

    def __init__(self, model: nn.Module, distiller: Distiller) -> None:
        self.model = model.eval().requires_grad_(False)
        self.distiller = distiller

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Tensor:
        return self.distiller.teacher_outputs(self.model, batch)


class FixedShapeTeacher:
    """A frozen model on a CPU that runs on every batch in fixed shapes: an example's outputs always have the same bits.

    Args:
        data: the examples that batches will be made of.
    """

    source: ClassVar[str | None] = "online"

    def __init__(self, model: nn.Module, distiller: Distiller, data: Encoded) -> None:
        # No gradient is ever computed, but autocast caches the conversion of a weight only if it requires one.
        self.model = model.eval().requires_grad_(True)
        self.distiller = distiller
        self.data = data
        self.lengths = data.lengths
        self.batches = FixedShapeBatches(self.lengths)

    def outputs(self, batch: Batch) -> Tensor:
        """[batch, length, features], or [batch, features]; padded positions hold another token of the example."""
        examples = batch.indices.tolist()
        found = {example: rows for fixed in self.batches.covering(examples) for example, rows in self.compute(fixed)}
        rows = torch.cat([found[example] for example in examples])
        return _padded(rows, self.data.offsets, batch) if self.distiller.rows_per_token(self.data.head) else rows

    @torch.no_grad()
    def compute(self, fixed: FixedShapeBatch) -> list[tuple[int, Tensor]]:
        """Per requested example (its number, its outputs [n, features], float32)."""
        batch = Batches(self.data, 1).batch(torch.tensor(fixed.examples))
        outputs = self.distiller.teacher_outputs(self.model, batch).float()
        per_token = self.distiller.rows_per_token(self.data.head)
        lengths = self.lengths[fixed.examples].tolist()
        return [
            (example, outputs[row, : lengths[row]] if per_token else outputs[row : row + 1])
            for row, example in fixed.requested.items()
        ]


@dataclass(frozen=True)
class StoredTeacher:
    """The stored outputs of a frozen model.

    Args:
        rows: [rows, features], float32; may be mapped from a file.
        offsets: [examples + 1]; example i has the rows offsets[i] .. offsets[i + 1].
        per_token: whether an example has a row per token, or one.
    """

    rows: np.ndarray[Any, np.dtype[np.float32]]
    offsets: Tensor
    per_token: bool
    source: ClassVar[str | None] = "stored"

    def outputs(self, batch: Batch) -> Tensor:
        """[batch, length, features], or [batch, features]; padded positions hold another token of the example."""
        first, end = self.offsets[batch.indices].tolist(), self.offsets[batch.indices + 1].tolist()
        taken = torch.from_numpy(np.concatenate([self.rows[i:j] for i, j in zip(first, end, strict=True)]))
        return send(_padded(taken, self.offsets, batch) if self.per_token else taken, batch.labels.device)


def _padded(rows: Tensor, offsets: Tensor, batch: Batch) -> Tensor:
    """The rows of a batch's tokens, example after example, as [batch, length, features]."""
    first = offsets[batch.indices]
    lengths = offsets[batch.indices + 1] - first
    starts = lengths.cumsum(0) - lengths
    # From positions in the data set to positions in `rows`.
    positions = batch.token_indices - first.unsqueeze(1) + starts.unsqueeze(1)
    return rows[positions.clamp_(0, len(rows) - 1)]


def iter_outputs(
    model: nn.Module, distiller: Distiller, batches: Batches, accelerator: Accelerator
) -> Iterator[tuple[int, Tensor]]:
    """A teacher's outputs for a whole data set, the longest examples first.

    On a CPU it runs in the fixed shapes of `FixedShapeTeacher`, elsewhere in `batches`.

    Yields:
        Per example (its number, its outputs [n, features], float32 on the CPU): a row per token or,
        without `Distiller.rows_per_token` one row.
    """
    lengths = batches.data.lengths
    if is_batch_invariant(accelerator.device):
        teacher = FixedShapeTeacher(model, distiller, batches.data)
        fixed = teacher.batches.covering(lengths.argsort(descending=True, stable=True).tolist())
        for start in range(0, len(fixed), _BATCHES_PER_AUTOCAST):
            with accelerator.autocast():
                found = [
                    out for batch in fixed[start : start + _BATCHES_PER_AUTOCAST] for out in teacher.compute(batch)
                ]
            yield from found
        return
    online, per_token = OnlineTeacher(model, distiller), distiller.rows_per_token(batches.data.head)
    for batch in batches.epoch():
        with accelerator.autocast():
            outputs = online.outputs(batch.to(accelerator.device))
        outputs = outputs.float().cpu()
        for row, example in enumerate(batch.indices.tolist()):
            own = outputs[row, : int(lengths[example])] if per_token else outputs[row : row + 1]
            yield example, own
