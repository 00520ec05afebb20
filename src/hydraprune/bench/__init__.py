"""Finished models measured in the engines that are installed: sides that take turns, each in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.bench.options import BenchOptions
    from hydraprune.bench.race import bench
    from hydraprune.bench.workloads import BenchTask
    from hydraprune.results.bench_report import BenchReport, read_bench

__all__ = ["BenchOptions", "BenchReport", "BenchTask", "bench", "read_bench"]

__getattr__ = lazy_exports(
    __name__,
    {
        "BenchOptions": "hydraprune.bench.options",
        "BenchReport": "hydraprune.results.bench_report",
        "BenchTask": "hydraprune.bench.workloads",
        "bench": "hydraprune.bench.race",
        "read_bench": "hydraprune.results.bench_report",
    },
)
