"""Which metrics are errors, of which a lower value is better."""

from __future__ import annotations

import math

ERRORS = ("perplexity", "loss")


def is_error(metric: str) -> bool:
    """Whether a lower value of a metric is better.

    Args:
        metric: its name, which ends in that of the evaluation set for the second and later ones.
    """
    return any(metric == name or metric.startswith(f"{name}_") for name in ERRORS)


def is_better(new: float, old: float, metric: str) -> bool:
    """Whether `new` is better; NaN is the worst."""
    if math.isnan(new) or math.isnan(old):
        return not math.isnan(new)
    return new < old if is_error(metric) else new > old
