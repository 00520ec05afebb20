"""The trial batch: model, teacher and loss are computed once, on the longest and the shortest text, before training."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.data.batches import Batch, Batches
from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples, TaskData
from hydraprune.errors import UserError, one_line
from hydraprune.runs.experiment import Experiment
from hydraprune.training.distillation import Distiller

log = logging.getLogger(__name__)

# A model whose output for a text does not depend on padding differs by the rounding of fp32, some 1e-6 of its outputs.
_TOLERANCE = 1e-3
_SMALLEST = 1e-5


@dataclass
class Trials:
    """Which combinations of model, task and loss were tried: jobs of a sweep share them."""

    _done: set[str] = field(default_factory=set)

    def is_new(self, experiment: Experiment) -> bool:
        """Whether this run's model, task and loss were not tried yet; the next time they were."""
        nodes = [experiment.config[key] for key in ("model", "task", "distill")]
        key = json.dumps([nodes, experiment.dense_source], sort_keys=True, default=str)
        is_new = key not in self._done
        self._done.add(key)
        return is_new


def trial_batch(data: TaskData, tokenizer: Any, max_length: int) -> Batches:
    """The rows of the longest and the shortest example of a task."""
    everything = [data.train, *data.evaluations.values()]
    pairs = [pair for examples in everything for pair in zip(examples.texts, examples.labels, strict=True)]
    sizes = [sum(map(len, texts)) for texts, _ in pairs]
    chosen = [pairs[sizes.index(size)] for size in (max(sizes), min(sizes))]
    examples = Examples([data.labels.excerpt(texts) for texts, _ in chosen], [label for _, label in chosen])
    return Batches(encode(tokenizer, examples, max_length, data.labels), batch_size=1)


def try_out(
    model: nn.Module, teacher: nn.Module, distiller: Distiller, batches: Batches, named: tuple[str, str]
) -> None:
    """Compute outputs and loss on a trial batch; log it if the outputs depend on padding.

    Args:
        model: on the CPU.
        teacher: `model` itself where the run starts from its teacher.
        named: the config key and value that name the model, for messages.

    Raises:
        UserError: the model cannot be computed, or the loss does not fit it.
    """
    key, value = named
    modes = model.training, teacher.training
    model.eval()
    teacher.eval()
    try:
        with torch.no_grad():
            try:
                # Each a row, or the rows that belong together.
                longest, *_, shortest = (order := batches.order()) * (1 if len(order) > 1 else 2)
                difference, scale = _difference_by_padding(model, batches, longest, shortest)
            except Exception as error:  # a model's code may raise anything
                width = int(batches.data.lengths.max())
                reason = f"cannot be computed on a text of the task ({width} tokens): {one_line(error)}"
                cure = "check that its tokenizer is its own, or lower task.max_length"
                raise UserError(reason, key=key, value=value, cure=cure) from error
            if difference > max(_TOLERANCE * scale, _SMALLEST):
                log.warning(
                    "%s=%s: its outputs for a text depend on the padding of its batch (they differ by %.1g of %.1g), "
                    "so scores depend on the batch size",
                    *named,
                    difference,
                    scale,
                )
            _try_loss(model, teacher, distiller, batches.batch(torch.cat([longest, shortest])))
    finally:
        model.train(modes[0])
        teacher.train(modes[1])


def _try_loss(model: nn.Module, teacher: nn.Module, distiller: Distiller, batch: Batch) -> None:
    name = type(distiller).__name__
    try:
        why = batch.head.misfit_on(model, batch.inputs)
        if why is not None:
            raise UserError(why, key="task")
        why = distiller.misfit_on(model, batch)
        if why is None:
            outputs = distiller.teacher_outputs(teacher, batch) if distiller.needs_teacher else None
            distiller.loss(model, batch, outputs)
    except UserError:
        raise
    except Exception as error:
        why = f"{name} cannot be computed: {one_line(error)}"
    if why is not None:
        raise UserError(why, key="distill", cure="use distill=logits or distill=none")


def _difference_by_padding(
    model: nn.Module, batches: Batches, longest: Tensor, shortest: Tensor
) -> tuple[float, float]:
    """(largest difference between the outputs for the shortest text padded and alone, largest output)."""
    padded = batches.batch(torch.cat([longest, shortest])).outputs(model).float()[-1]
    alone = batches.batch(shortest[-1:]).outputs(model).float()[0]
    if batches.data.head.output_per_token:
        padded = padded[: len(alone)]
    return float((padded - alone).abs().max()), float(alone.abs().max())
