"""Means, standard deviations and confidence intervals over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Statistics of values, one per seed.

    Args:
        sd: sample standard deviation (n - 1); None for a single value.
    """

    n: int
    mean: float
    max: float
    sd: float | None


def spread(values: Sequence[float]) -> Spread | None:
    """The statistics of finite values; None without any."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), max(values), sd)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The t-interval of the mean, mean -+ t(0.975, n - 1) x sd / sqrt(n); None for fewer than two values."""
    found = spread(values)
    if found is None or found.sd is None:
        return None
    # The quantile of t alone: scipy.stats takes longer to import than all else that reads reports.
    half = float(stdtrit(found.n - 1, (1 + CONFIDENCE) / 2)) * found.sd / math.sqrt(found.n)
    return found.mean - half, found.mean + half
