"""Calibration batches: losses on the training data for methods that prune without training."""

from __future__ import annotations

from collections.abc import Iterator

from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batches
from hydraprune.sparsity import Calibration, ignore_padding


def calibration_of(model: nn.Module, train: Batches, accelerator: Accelerator) -> Calibration:
    """A function that runs `model` over the first batches of the first epoch and yields their losses.

    It takes the number of batches, of which there may be fewer. The loss is always the task's: a
    student that still equals its teacher has a distillation loss of zero. The model runs in
    evaluation mode and is put back into the mode in which it was.
    """

    def run(batches: int) -> Iterator[Tensor]:
        training = model.training
        model.eval()
        try:
            for indices in train.order()[:batches]:
                batch = train.batch(indices).to(accelerator.device)
                with accelerator.autocast(), ignore_padding(batch.inputs["attention_mask"]):
                    outputs = batch.outputs(model)
                yield batch.loss(outputs)
        finally:
            model.train(training)

    return run
