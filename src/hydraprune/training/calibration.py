"""What does a model do on its own training data? Batches for methods that prune without training."""

from __future__ import annotations

from collections.abc import Iterator

from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batches
from hydraprune.sparsity import Calibration, only
from hydraprune.training.distillation import task_loss


def calibration_of(model: nn.Module, train: Batches, accelerator: Accelerator) -> Calibration:
    """Runs `model` over the first batches of the first epoch, all there are if fewer than asked for.

    The loss is the task's whatever the run learns from: beside the model that it starts from, which is
    its teacher, a student has lost nothing yet. The model is put back in the mode in which it was.
    """

    def run(batches: int) -> Iterator[Tensor]:
        training = model.training
        model.eval()
        try:
            for indices in train.order()[:batches]:
                batch = train.batch(indices).to(accelerator.device)
                with accelerator.autocast(), only(batch.inputs["attention_mask"]):
                    logits = model(**batch.inputs).logits
                yield task_loss(logits, batch.labels)
        finally:
            model.train(training)

    return run
