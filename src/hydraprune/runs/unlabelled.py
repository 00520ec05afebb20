"""Predictions for texts whose labels are not known."""

from __future__ import annotations

from collections.abc import Mapping

from hydraprune.config.instantiate import pretrained
from hydraprune.data.examples import Examples, ReadsTexts, TaskData
from hydraprune.data.summary import DataSummary, SplitSummary
from hydraprune.errors import UserError
from hydraprune.models.classification_head import label_names
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.setup import predict_on, use_runtime
from hydraprune.training.evaluation import Predictions


def predict_texts(
    experiment: Experiment, path: str, key: str, split: str | None, file: str | None
) -> tuple[Mapping[str, Predictions], TaskData]:
    """The predictions of the model at `path`, and the texts.

    Args:
        key: what names the model, for errors.
        split: of the task's data set; or
        file: a file with the task's columns.

    Raises:
        UserError: the model or the texts cannot be loaded, or they do not fit together.
    """
    use_runtime(experiment)
    task = experiment.components.task
    if not isinstance(task, ReadsTexts):
        reason, cure = "its texts cannot be read without labels", "use hydraprune eval MODEL --predictions FILE"
        raise UserError(reason, key="task", value=task.name, cure=cure)
    texts = task.read_texts(split, file)
    source = pretrained(path, key)
    head = task.head_of(label_names(source.config()), texts)
    examples = Examples(texts.texts, [head.unknown(each) for each in texts.texts])
    name = split or str(file)
    read = DataSummary({name: SplitSummary(len(examples), len(examples))})
    data = TaskData(examples, {name: examples}, head, read)
    return predict_on(experiment, source, key, path, data), data
