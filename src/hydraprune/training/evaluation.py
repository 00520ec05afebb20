"""Evaluation: the metrics of a model on its evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batches
from hydraprune.errors import UserError
from hydraprune.training.processes import Processes
from hydraprune.training.setup import Score


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for the examples of one evaluation set.

    Args:
        predictions: as `Labels.collect` returns them, such as classes by their numbers, in the order of the set.
        references: the examples' labels in the same form.
    """

    predictions: list[Any]
    references: list[Any]


def evaluate(
    model: nn.Module,
    evaluations: Mapping[str, Batches],
    score: Score,
    accelerator: Accelerator,
    processes: Processes | None = None,
) -> dict[str, float]:
    """Metric -> value; those of the second and later sets carry its name, as in `accuracy_validation_mismatched`.

    Raises:
        Stopped, UserError: see `predict`.
    """
    return scores(predict(model, evaluations, accelerator, processes), score)


def scores(predicted: Mapping[str, Predictions], score: Score) -> dict[str, float]:
    """Metric -> value of the predictions for some evaluation sets, named as by `evaluate`."""
    values: dict[str, float] = {}
    for index, (name, made) in enumerate(predicted.items()):
        suffix = "" if index == 0 else f"_{name}"
        values |= {f"{metric}{suffix}": value for metric, value in score(made.predictions, made.references).items()}
    return values


@torch.no_grad()
def predict(
    model: nn.Module,
    evaluations: Mapping[str, Batches],
    accelerator: Accelerator,
    processes: Processes | None = None,
) -> dict[str, Predictions]:
    """Evaluation set -> the model's predictions. Leaves the model in the mode in which it was.

    Args:
        processes: among which the batches are divided; all get all predictions. None: this one computes them.

    Raises:
        Stopped: between two batches, if the process was asked to stop.
        UserError: an output of the model is not finite.
    """
    training = model.training
    model.eval()
    shared = processes or Processes()
    predicted = {name: _predict(model, name, batches, accelerator, shared) for name, batches in evaluations.items()}
    model.train(training)
    return predicted


def _predict(
    model: nn.Module, name: str, batches: Batches, accelerator: Accelerator, processes: Processes
) -> Predictions:
    data = batches.data
    # (number of the batch, predictions, references, whether each row is finite, their numbers)
    made: list[tuple[int, list[Any], list[Any], Tensor, Tensor]] = []
    order = batches.order()
    for first in range(0, len(order), processes.count):
        processes.check_signals()
        number = first + processes.rank
        if number >= len(order):
            continue
        batch = batches.batch(order[number])
        moved = batch.to(accelerator.device)
        with accelerator.autocast():
            outputs = moved.outputs(model)
        outputs = outputs if data.head.is_running_text else outputs.float()
        predicted = data.head.predictions(outputs, moved.labels, moved.mask)
        found = outputs.isfinite().flatten(1).all(-1).cpu()
        made.append((number, predicted, data.head.references(batch.labels), found, batch.indices))
    made = sorted(processes.gather(made), key=lambda each: each[0])
    predictions = [value for each in made for value in each[1]]
    references = [value for each in made for value in each[2]]
    finite, indices = [each[3] for each in made], [each[4] for each in made]
    rows = torch.cat(indices)
    broken = rows[~torch.cat(finite)]
    if len(broken):
        rows_of = "examples" if data.head.group == 1 and not data.head.varies_rows else "rows"
        raise UserError(
            f"the model's output for {len(broken)} of {len(data)} {rows_of} of {name} is not finite, first for number "
            f"{int(broken.min())} (counted from 0)",
            cure="lower optimizer.lr, or set training.max_grad_norm=1",
        )
    # Of each group, whose rows are neighbours, there is one prediction.
    order = rows[:: data.head.group].argsort().tolist()
    ours, theirs = ([found[place] for place in order] for found in (predictions, references))
    return Predictions(*data.head.collect(ours, theirs, data))
