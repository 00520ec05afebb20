"""Tasks and their examples: loading, checks, tokenization, batches and metrics.

To add a task, write a class with the interface `Task`; to add a metric, a function of type `Metric`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.data.examples import SCORE, Examples, Labels, Task, TaskData
    from hydraprune.data.metrics import Metric

__all__ = ["SCORE", "Examples", "Labels", "Metric", "Task", "TaskData"]

__getattr__ = lazy_exports(
    __name__,
    {
        "SCORE": "hydraprune.data.examples",
        "Examples": "hydraprune.data.examples",
        "Labels": "hydraprune.data.examples",
        "Metric": "hydraprune.data.metrics",
        "Task": "hydraprune.data.examples",
        "TaskData": "hydraprune.data.examples",
    },
)
