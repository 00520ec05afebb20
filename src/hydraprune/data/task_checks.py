"""Checks of a task's own settings: lengths, metrics, columns, class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydraprune.data.examples import Labels, Task
from hydraprune.data.metrics import BINARY, KNOWN, Metric, metric_name
from hydraprune.errors import UserError

_INTERFACE = ("name", "max_length", "metrics", "load")


def as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    """A sequence of strings as a tuple; a lone string is a sequence of one."""
    return (value,) if isinstance(value, str) else tuple(value)


def freeze_lists(task: Any, *fields: str) -> None:
    """Turn list fields of a frozen dataclass into tuples, so that it can be compared and hashed."""
    for field in fields:
        if getattr(task, field) is not None:
            object.__setattr__(task, field, as_tuple(getattr(task, field)))


def check_task(task: Any) -> None:
    """Refuse a task class that lacks part of the interface `Task`.

    Raises:
        UserError: naming what is missing.
    """
    if missing := [name for name in _INTERFACE if not hasattr(task, name)]:
        target = f"{type(task).__module__}.{type(task).__qualname__}"
        reason = f"a task needs {', '.join(_INTERFACE)}, and this class has no {missing[0]}"
        raise UserError(reason, key="task._target_", value=target, cure="see hydraprune.data.Task")
    if not isinstance(task.max_length, int) or isinstance(task.max_length, bool) or task.max_length < 3:
        raise UserError("must be at least 3 tokens", key="task.max_length", value=task.max_length)
    if not task.metrics:
        raise UserError("a task needs a metric", key="task.metrics", value=list(task.metrics), cure="name at least one")


def check_metric_names(metrics: Sequence[str | Metric], labels: Labels) -> None:
    """Refuse unknown metrics, and those of other predictions, such as of classes for scores.

    Raises:
        UserError: naming the metrics to choose from.
    """
    known = KNOWN[labels.kind]
    for metric in metrics:
        if not callable(metric) and metric not in known:
            others = [kind for kind, names in KNOWN.items() if metric in names]
            why = f"is a metric of {others[0]}, and the task has {labels.kind}" if others else "no such metric"
            raise UserError(
                why,
                key="task.metrics",
                value=metric,
                cure=f"choose from {', '.join(known)}, or give the dotted name of a function of your own",
            )


def check_metrics(metrics: Sequence[str | Metric], labels: Labels) -> None:
    """Refuse labels that cannot be learned, and metrics that do not apply to them.

    Raises:
        UserError: a single class, an unknown metric, or a metric of two classes for more of them.
    """
    if not labels.regression and labels.count < labels.fewest:
        names = ", ".join(labels.names)
        raise UserError(f"the data has one class only ({names})", key="task.label", cure="give at least two")
    check_metric_names(metrics, labels)
    for metric in metrics:
        if labels.kind == "classes" and metric in BINARY and labels.count != 2:
            reason = f"is a metric of two classes, and the task has {labels.count}"
            raise UserError(reason, key="task.metrics", value=metric_name(metric), cure="use f1_macro")


def check_share(share: object, alternative: str = "") -> None:
    """Refuse a validation share that is not between 0 and 1.

    Args:
        alternative: another value that the user may give, for the error.

    Raises:
        UserError: it is not.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share < 1.0:
        raise UserError(f"must be between 0 and 1{alternative}", key="task.validation_share", value=share)


def check_common(task: Task, labels: Labels, max_train_examples: int | None) -> None:
    """The checks that all built-in tasks share.

    Raises:
        UserError: a length, number of examples or metric is out of range.
    """
    check_task(task)
    if max_train_examples is not None and max_train_examples < 1:
        raise UserError("must be at least 1, or null for all", key="task.max_train_examples", value=max_train_examples)
    check_metric_names(task.metrics, labels)


def check_columns(text: Sequence[str], label: str, labels: Sequence[str] | None) -> None:
    """Refuse anything but one or two text columns, one of them as the label, and repeated class names.

    Raises:
        UserError: naming the key.
    """
    if not 1 <= len(text) <= 2:
        raise UserError("give one text column, or two", key="task.text", value=list(text))
    if label in text:
        raise UserError("is a text column of the task too", key="task.label", value=label, cure="name another column")
    if labels is not None and len(set(labels)) != len(labels):
        raise UserError("names a class twice", key="task.labels", value=list(labels))
