"""Checks of a task's splits: whether their labels can be learned and scored, and whether they overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hydraprune.data.batches import Encoded
from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.labels import IGNORED
from hydraprune.data.metrics import NEEDS_TWO_CLASSES, REGRESSION, Metric
from hydraprune.errors import UserError

log = logging.getLogger(__name__)
# Evaluation examples that are searched for in the training set.
_OVERLAP_SAMPLE = 1000


def check_splits(data: TaskData, metrics: Sequence[str | Metric]) -> None:
    """Refuse splits from which nothing can be learned or scored; warn about likely mistakes.

    Raises:
        UserError: a split holds one class or one score only, where two are needed.
    """
    trained = set(data.labels.values(data.train.labels))
    if len(trained) < data.labels.fewest:
        more = ", or more of them by task.max_train_examples" if data.labels.count > 1 else ""
        raise UserError(
            f"every training example is of one class only ({_names(trained, data.labels)})",
            key="task.label",
            cure=f"give examples of at least two{more}",
        )
    check_evaluations(data, metrics)
    for split, examples in data.evaluations.items():
        found = set(data.labels.values(examples.labels))
        if len(found) < data.labels.fewest:
            log.warning("task.label: every example of %s is of one class only (%s)", split, _names(found, data.labels))
        if not data.labels.regression and (unseen := found - trained):
            log.warning(
                "task.label: %s holds classes that no training example has (%s): they cannot be learned",
                split, _names(unseen, data.labels),
            )  # fmt: skip
        share = _overlap(examples, data.train)
        if share > 0.5:
            log.warning(
                "task: %.0f %% of %s are among the training examples: its score measures memorisation",
                100 * share, split,
            )  # fmt: skip


def check_evaluations(data: TaskData, metrics: Sequence[str | Metric]) -> None:
    """Refuse evaluation sets for which a metric is undefined, whatever the model.

    Raises:
        UserError: one class or one score only, where the metric needs two.
    """
    undefined = {"scores": REGRESSION, "classes": NEEDS_TWO_CLASSES}.get(data.labels.kind, ())
    needing = [metric for metric in metrics if metric in undefined]
    for split, examples in data.evaluations.items():
        found = set(data.labels.values(examples.labels))
        if needing and len(found) < 2:
            only = _names(found, data.labels)
            raise UserError(
                f"every example of {split} is of one class only ({only}), for which it is undefined",
                key="task.metrics",
                value=needing[0],
                cure="give a validation set with at least two",
            )


def check_targets(data: Encoded, split: str) -> None:
    """Refuse running text of which no token is predicted.

    Raises:
        UserError: naming the split.
    """
    if data.head.is_running_text and not bool((data.labels != IGNORED).any()):
        reason = f"the text of {split} has {int(data.offsets[-1])} tokens, of which none is predicted"
        raise UserError(reason, key="task.path", cure="give a longer text")


def _names(labels: set[float], known: Labels) -> str:
    if known.regression:
        return ", ".join(f"score {score:g}" for score in labels)
    return ", ".join(known.names[int(index)] for index in sorted(labels)[:8])


def _overlap(examples: Examples, train: Examples) -> float:
    """The share of (the first) examples whose texts occur in the training set."""
    sample = set(examples.texts[:_OVERLAP_SAMPLE])
    return len(sample.intersection(train.texts)) / len(sample)
