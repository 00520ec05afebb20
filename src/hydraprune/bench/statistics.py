"""Statistics of calls, and how many times faster one side is than the best dense ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from hydraprune.results.bench_report import Distribution, SideResult, Timing


def distribution(seconds: Sequence[float]) -> Distribution:
    """The statistics of some calls; percentiles are interpolated between neighbours.

    Raises:
        ValueError: there are none.
    """
    if not seconds:
        raise ValueError("no call was counted")
    ordered = sorted(seconds)
    sd = statistics.stdev(ordered) if len(ordered) > 1 else None
    percentiles = (_percentile(ordered, share) for share in (0.50, 0.90, 0.95, 0.99))
    return Distribution(len(ordered), statistics.fmean(ordered), sd, *percentiles)


def _percentile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def with_ratios(sides: Sequence[SideResult], clock: str, baseline: str) -> list[SideResult]:
    """The same sides with `vs_fp32` and `vs_any` of their timings.

    Args:
        clock: `cpu` or `wall`: whose medians are compared.
        baseline: label of the model whose dense sides the others are compared with.
    """
    dense = [side for side in sides if side.is_dense and side.model == baseline]
    single = _best([side for side in dense if side.precision == "fp32"], clock)
    any_precision = _best(dense, clock)

    def compared(timing: Timing) -> Timing:
        own = _median(timing, clock)

        def ratio(best: dict[str, float]) -> float | None:
            return best[timing.workload] / own if timing.workload in best and own > 0 else None

        return replace(timing, vs_fp32=ratio(single), vs_any=ratio(any_precision))

    return [replace(side, timings=tuple(map(compared, side.timings))) for side in sides]


def _best(sides: Sequence[SideResult], clock: str) -> dict[str, float]:
    """Workload -> the lowest median of some sides, but for those that a coarse clock gives as 0."""
    best: dict[str, float] = {}
    for side in sides:
        for timing in side.timings:
            if (own := _median(timing, clock)) > 0:
                best[timing.workload] = min(best.get(timing.workload, math.inf), own)
    return best


def _median(timing: Timing, clock: str) -> float:
    return timing.cpu.p50 if clock == "cpu" else timing.wall.p50
