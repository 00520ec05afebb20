"""Can these splits be learned from, and scored? What shows in their labels and texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.metrics import REGRESSION
from hydraprune.errors import UserError

log = logging.getLogger(__name__)
# Evaluation examples that are looked for among those to train on.
_SAMPLE = 1000
# Of one class alone these say 0 whatever the model does.
_OF_TWO_CLASSES = ("f1", "matthews")


def check_splits(data: TaskData, metrics: Sequence[str]) -> None:
    """Refuse splits from which nothing can be learned or told; say so where it is only likely.

    Raises:
        UserError: one class or one score only, where there must be two.
    """
    trained = set(data.train.labels)
    if len(trained) < 2:
        raise UserError(
            f"task.label: every training example is of one class only ({_names(trained, data.labels)}); give examples "
            f"of at least two{', or more of them by task.max_train_examples' if data.labels.count > 1 else ''}"
        )
    check_evaluations(data, metrics)
    for split, examples in data.evaluations.items():
        found = set(examples.labels)
        if len(found) < 2:
            log.warning("task.label: every example of %s is of one class only (%s)", split, _names(found, data.labels))
        if not data.labels.regression and (unseen := found - trained):
            log.warning(
                "task.label: %s holds classes that no training example has (%s): they cannot be learned",
                split, _names(unseen, data.labels),
            )  # fmt: skip
        share = _shared(examples, data.train)
        if share > 0.5:
            log.warning(
                "task: %.0f %% of %s are among the training examples, so its score is one of learning by heart",
                100 * share, split,
            )  # fmt: skip


def check_evaluations(data: TaskData, metrics: Sequence[str]) -> None:
    """Refuse splits on which a metric cannot be told, whatever the model that is to be scored.

    Raises:
        UserError: one class or one score only, where the metric needs two.
    """
    needing = [metric for metric in metrics if metric in (REGRESSION if data.labels.regression else _OF_TWO_CLASSES)]
    for split, examples in data.evaluations.items():
        found = set(examples.labels)
        if needing and len(found) < 2:
            raise UserError(
                f"task.metrics={needing[0]}: every example of {split} is of one class only "
                f"({_names(found, data.labels)}), on which it cannot be told; give a validation set with at least two"
            )


def _names(places: set[float], labels: Labels) -> str:
    if labels.regression:
        return ", ".join(f"score {score:g}" for score in places)
    return ", ".join(labels.names[int(place)] for place in sorted(places)[:8])


def _shared(examples: Examples, train: Examples) -> float:
    """The share of (the first) examples whose texts are among those of `train`."""
    sample = set(examples.texts[:_SAMPLE])
    return len(sample.intersection(train.texts)) / len(sample)
