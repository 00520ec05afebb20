"""Evaluation: the metrics of a model on its evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import nn

from hydraprune.data.batches import Batches
from hydraprune.errors import UserError
from hydraprune.training.setup import Score
from hydraprune.utils import signals


@torch.no_grad()
def evaluate(
    model: nn.Module, evaluations: Mapping[str, Batches], score: Score, accelerator: Accelerator
) -> dict[str, float]:
    """Metric -> value; those of the second and later sets carry its name, as in `accuracy_validation_mismatched`.

    Leaves the model in the mode in which it was.

    Raises:
        Stopped: between two batches, if the process was asked to stop.
        UserError: an output of the model is not finite.
    """
    training = model.training
    model.eval()
    values: dict[str, float] = {}
    for index, (name, batches) in enumerate(evaluations.items()):
        predictions, references = _predict(model, name, batches, accelerator)
        suffix = "" if index == 0 else f"_{name}"
        values |= {f"{metric}{suffix}": value for metric, value in score(predictions, references).items()}
    model.train(training)
    return values


def _predict(
    model: nn.Module, name: str, batches: Batches, accelerator: Accelerator
) -> tuple[list[float], list[float]]:
    """(predictions, references): classes, or scores for a regression."""
    predictions, labels, finite, indices = [], [], [], []
    for batch in batches.epoch():
        signals.check()
        moved = batch.to(accelerator.device)
        with accelerator.autocast():
            logits = model(**moved.inputs).logits.float()
        regression = batch.labels.is_floating_point()
        predictions.append(logits.squeeze(-1) if regression else logits.argmax(-1))
        finite.append(logits.isfinite().all(-1))
        labels.append(batch.labels)
        indices.append(batch.indices)
    broken = torch.cat(indices)[~torch.cat(finite).cpu()]
    if len(broken):
        raise UserError(
            f"the model's output for {len(broken)} of {len(batches.data)} examples of {name} is not finite, "
            f"first for example {int(broken.min())} (counted from 0)",
            cure="lower optimizer.lr, or set training.max_grad_norm=1",
        )
    return torch.cat(predictions).cpu().tolist(), torch.cat(labels).tolist()
