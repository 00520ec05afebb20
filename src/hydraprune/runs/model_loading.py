"""Loading of a run's models together with their tokenizers and the labels of its task."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from hydraprune.config.instantiate import pretrained, student
from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.classification_head import label_names, label_order, take_labels
from hydraprune.models.families import pads_positions
from hydraprune.models.head_classes import problem_of
from hydraprune.models.pretrained import ModelSource
from hydraprune.runs.directory import finished
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.inputs import check_model

log = logging.getLogger(__name__)

_MULTI_LABEL = "multi_label_classification"


def load_pretrained(source: ModelSource, labels: Labels, tokenizer: Any) -> nn.Module:
    """A model with a head for a task's labels: the checkpoint's own if it has one of that size, else a new one.

    Raises:
        UserError: see `ModelSource.load`.
    """
    return _with_padding_of(tokenizer, source.load(labels))


def load_fine_tuned(source: ModelSource, labels: Labels, tokenizer: Any) -> nn.Module:
    """A fine-tuned model with its head, its outputs in the order of a task's labels.

    Raises:
        UserError: see `ModelSource.load`; or its outputs cannot be reordered.
    """
    model = source.load()
    try:
        take_labels(model, labels)
    except UserError as error:
        raise UserError(error.reason, key="model", value=source.name, cure=error.cure) from None
    return _with_padding_of(tokenizer, model)


def starting_model(experiment: Experiment, labels: Labels) -> tuple[nn.Module, Any]:
    """The model that a run starts from, and its tokenizer; the pretrained one if its dense run is not finished.

    Raises:
        UserError: see `load_pretrained` and `load_fine_tuned`.
    """
    dense = experiment.dense_source
    if experiment.dense is not None and finished(experiment.dense) is not None:
        dense = str(experiment.dense.directory / "model")
    source = student(experiment.components, dense)
    tokenizer = source.tokenizer()
    return (load_fine_tuned if dense else load_pretrained)(source, labels, tokenizer), tokenizer


def _with_padding_of(tokenizer: Any, model: nn.Module) -> nn.Module:
    """`model`, with the padding token of its tokenizer in its config.

    The head of a decoder finds the last token of a text by it. Models whose positions count from it keep theirs.
    """
    if not pads_positions(model):
        model.config.pad_token_id = tokenizer.pad_token_id  # type: ignore[union-attr]
    return model


def check_head(config: Any, labels: Labels, key: str, path: str, task: str) -> None:
    """Refuse a fine-tuned model whose outputs are not the task's labels; log it where only the names differ.

    Args:
        config: of the model at `path`, which the config names at `key`.

    Raises:
        UserError: another number of labels, or several labels for one example.
    """
    if (problem := problem_of(config)) != labels.problem:
        reason = f"has a head for {problem}, and task {task} needs one for {labels.problem}"
        raise UserError(reason, key=key, value=path)
    if not labels.names_outputs:
        return
    if config.num_labels != labels.count:
        raise UserError(f"has {config.num_labels} labels and task {task} {labels.count}", key=key, value=path)
    several = getattr(config, "problem_type", None) == _MULTI_LABEL
    if several != (labels.problem_type == _MULTI_LABEL):
        gives, has = ("several labels", "one") if several else ("one label", "any number")
        raise UserError(
            f"was trained to give {gives} to one example, and task {task} has {has} for each",
            key=key,
            value=path,
            cure=f"give a model that was fine-tuned for {'one label' if several else 'several labels'} an example",
        )
    names = [name.lower() for name in label_names(config)]
    ours = [name.lower() for name in labels.names]
    order = label_order(config, labels)
    if order is not None and order != sorted(order):
        log.warning("%s=%s: its labels %s are put in the order of task %s: %s", key, path, names, task, ours)
    elif names != ours and not any(name.startswith("label_") for name in names):
        log.warning("%s=%s: its labels %s are taken, in this order, for %s of task %s", key, path, names, ours, task)


def check_dense_run(experiment: Experiment, labels: Labels) -> None:
    """Refuse a finished dense run whose weights have changed, or whose labels are not those that the task has now.

    Raises:
        UserError: naming its folder, or both labels.
    """
    dense = experiment.dense
    if dense is None or (report := finished(dense)) is None:
        return
    check_model(dense, report)
    config = pretrained(str(dense.directory / "model"), "run.root").config()
    theirs = label_names(config)
    if labels.names_outputs and theirs != labels.names:
        raise UserError(
            f"holds a dense run for the labels {', '.join(theirs)}, and the task has {', '.join(labels.names)}",
            key="run.root",
            value=experiment.config["run"]["root"],
            cure=f"give another folder, or remove {dense.directory}",
        )
