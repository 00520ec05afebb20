"""The data of a task, put together with a summary of what was read."""

from __future__ import annotations

from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.summary import DataSummary, SplitSummary, examples_digest


def left_out_of(read: int, apart: int, used: int) -> dict[str, int]:
    """Reason -> training rows that were read and are not used.

    Args:
        read: rows of the training file or split.
        apart: of these, set apart for evaluation.
        used: training examples.
    """
    return {"set apart for evaluation": apart, "task.max_train_examples": read - apart - used}


def task_data(
    train: Examples,
    evaluations: dict[str, Examples],
    labels: Labels,
    left_out: dict[str, int],
    multiline: dict[str, int] | None = None,
    digests: dict[str, str] | None = None,
) -> TaskData:
    """The examples and their summary: `left_out` of the training rows, `multiline` of splits, `digests` of files."""
    names = None if labels.regression else labels.names
    sets, lines = {"train": train, **evaluations}, multiline or {}
    splits = {}
    for name, each in sets.items():
        classes, reasons = labels.values(each.labels), left_out if name == "train" else None
        splits[name] = SplitSummary.of(each.texts, classes, names, reasons, lines.get(name, 0))
    if digests is None:
        digests = {name: examples_digest(each.texts, each.labels) for name, each in sets.items()}
    return TaskData(train, evaluations, labels, DataSummary(splits, digests))
