"""Calibration batches: losses on the training data for methods that prune without training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batches
from hydraprune.sparsity import ignore_padding


@dataclass(frozen=True)
class TrainCalibration:
    """Runs `model` over the first batches of the first epoch and yields their losses.

    It takes the number of batches, of which there may be fewer. The loss is always the task's: a
    student that still equals its teacher has a distillation loss of zero. The model runs in
    evaluation mode and is put back into the mode in which it was. Each of several processes runs over the same batches.
    """

    model: nn.Module
    train: Batches
    accelerator: Accelerator

    is_same_in_all_processes: ClassVar[bool] = True

    def __call__(self, batches: int) -> Iterator[Tensor]:
        training = self.model.training
        self.model.eval()
        try:
            for indices in self.train.order()[:batches]:
                batch = self.train.batch(indices).to(self.accelerator.device)
                with self.accelerator.autocast(), ignore_padding(batch.inputs["attention_mask"]):
                    outputs = batch.outputs(self.model)
                yield batch.loss(outputs)
        finally:
            self.model.train(training)
