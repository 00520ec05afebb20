"""What the sides of a bench compute: batches of random tokens of one length, and batches of a task's texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.bench.options import CALLS, BenchOptions
from hydraprune.data.batches import Batch, Batches, Encoded
from hydraprune.data.encoding import Texts, encode
from hydraprune.data.examples import Examples, Labels
from hydraprune.deploy.text_batches import Inputs, input_names
from hydraprune.errors import UserError
from hydraprune.models.classification_head import label_order
from hydraprune.models.families import max_positions

_SEED = 0


@dataclass(frozen=True)
class BenchTask:
    """A task whose texts are measured with, and its metric.

    Args:
        name: on the command line.
        examples: its main evaluation set.
        calibration: texts of its training set, for int8.
        max_length: most tokens of an example.
        metric: the first one, the headline.
        score: (predictions, references) -> metric -> value.
    """

    name: str
    examples: Examples
    calibration: Texts
    labels: Labels
    max_length: int
    metric: str
    score: Callable[[Sequence[float], Sequence[float]], dict[str, float]]


@dataclass(frozen=True)
class Workload:
    """Batches that every side computes in turn.

    Args:
        name, batch, length, tokens: as in `Timing`.
        batches: model argument -> int64 [batch, tokens].
    """

    name: str
    batch: int
    length: int | None
    tokens: float
    batches: Sequence[Inputs]


def bench_inputs(model: nn.Module) -> list[str]:
    """The inputs that a model is timed with: token types only where it has several."""
    has_types = (getattr(model.config, "type_vocab_size", None) or 0) > 1
    return [name for name in input_names(model) if has_types or name != "token_type_ids"]


def grid(model: nn.Module, options: BenchOptions, lengths: Sequence[int]) -> list[Workload]:
    """Every batch size with every length: random tokens without padding, the same for each side.

    Raises:
        UserError: the model has fewer positions.
    """
    config: Any = model.config
    positions, names = max_positions(model), bench_inputs(model)
    if too_long := [length for length in lengths if length > positions]:
        reason, cure = f"the model has {positions} positions", "give shorter lengths"
        raise UserError(reason, key=f"--length {too_long[0]}", cure=cure)
    generator = torch.Generator().manual_seed(_SEED)
    made = []
    for batch in options.batches:
        for length in lengths:
            ids = torch.randint(0, config.vocab_size, (batch, length), generator=generator)
            if config.pad_token_id is not None:  # would be padding
                ids = torch.where(ids == config.pad_token_id, (ids + 1) % config.vocab_size, ids)
            inputs = with_all(names, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            made.append(Workload(f"batch {batch}, {length} tokens", batch, length, length, [inputs]))
    return made


@dataclass(frozen=True)
class TaskInputs:
    """The texts of a task as one model reads them.

    Args:
        workloads: batches of random texts, one workload for each batch size.
        evaluation: batches of the examples of the metric.
        order: for each label of the task, the output of the model that is it; None: the same order.
        task: that it is of.
    """

    workloads: list[Workload]
    evaluation: list[Batch]
    order: list[int] | None
    task: BenchTask
    names: list[str]

    @property
    def evaluation_inputs(self) -> list[Inputs]:
        """Model argument -> int64 [batch, tokens]."""
        return [with_all(self.names, batch.inputs) for batch in self.evaluation]

    def scores(self, logits: Sequence[Sequence[float]]) -> dict[str, float]:
        """Metric -> value of the model's outputs for `evaluation`, [examples, labels]."""
        outputs = torch.tensor(logits, dtype=torch.float64)
        if self.order is not None:
            outputs = outputs[:, self.order]
        targets, labels = torch.cat([batch.labels for batch in self.evaluation]), self.task.labels
        mask = torch.ones(len(outputs), 1, dtype=torch.bool)
        return self.task.score(labels.predictions(outputs, targets, mask), labels.references(targets))


def task_inputs(model: nn.Module, tokenizer: Any, task: BenchTask, options: BenchOptions) -> TaskInputs:
    """The texts of a task for a model: for the clock, and for the metric.

    Raises:
        UserError: the model has another number of labels.
    """
    config: Any = model.config
    if config.num_labels != task.labels.count:
        reason = f"has {config.num_labels} labels and task {task.name} {task.labels.count}"
        raise UserError(reason, key="MODEL", value=config.name_or_path or None)
    examples, names = subset(task.examples, options.examples), bench_inputs(model)
    encoded = encode(tokenizer, examples, min(task.max_length, max_positions(model)), task.labels)
    needed = options.rounds * (CALLS - 1)
    sizes = dict.fromkeys(min(batch, len(encoded)) for batch in options.batches)
    workloads = [_task_workload(encoded, names, batch, needed, task.name) for batch in sizes]
    evaluation = list(Batches(encoded, max(options.batches)).epoch())
    return TaskInputs(workloads, evaluation, label_order(config, task.labels), task, names)


def subset(examples: Examples, most: int) -> Examples:
    """At most so many examples, evenly spread over all: the same for each model."""
    if len(examples) <= most:
        return examples
    places = [index * len(examples) // most for index in range(most)]
    return Examples([examples.texts[place] for place in places], [examples.labels[place] for place in places])


def _task_workload(encoded: Encoded, names: list[str], batch: int, needed: int, task: str) -> Workload:
    batches = Batches(encoded, batch, shuffle_seed=_SEED)
    whole = [batches.batch(indices) for indices in batches.order()[:needed] if len(indices) == batch]
    inputs = [with_all(names, made.inputs) for made in whole]
    tokens = sum(made["input_ids"].shape[1] for made in inputs) / len(inputs)
    return Workload(f"batch {batch}, {task}", batch, None, tokens, inputs)


def with_all(names: Sequence[str], inputs: Mapping[str, Tensor]) -> Inputs:
    """These inputs; token types that the tokenizer does not give are 0."""
    ids = inputs["input_ids"]
    return {name: inputs[name] if name in inputs else torch.zeros_like(ids) for name in names}
