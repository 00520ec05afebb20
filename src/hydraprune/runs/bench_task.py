"""The task of a bench: its texts, labels and metric, from a run's config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydraprune.bench.workloads import BenchTask
from hydraprune.data.metrics import metric_name
from hydraprune.data.splits import check_evaluations
from hydraprune.deploy.compact_model import source_of
from hydraprune.models.tokenizer_checks import check_tokenizer
from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.model_loading import check_head
from hydraprune.runs.setup import TaskLoader, scorer


def bench_task(config: Any, models: Sequence[str]) -> BenchTask:
    """The task that a config describes, checked against each model.

    Args:
        config: of a run.
        models: folders or hub ids.

    Raises:
        UserError: the data cannot be loaded, a metric is undefined for them, or a model does not fit them.
    """
    experiment = build_experiment(config)
    data, task = TaskLoader()(experiment), experiment.components.task
    check_evaluations(data, task.metrics)
    for model in models:
        source = source_of(model, "MODEL")
        check_head(source.config(), data.labels, "MODEL", model, task.name)
        check_tokenizer("MODEL", model, source.tokenizer(), data, source.blueprint(), task.max_length)
    return BenchTask(
        name=task.name,
        examples=next(iter(data.evaluations.values())),
        calibration=data.train.texts,
        labels=data.labels,
        max_length=task.max_length,
        metric=metric_name(task.metrics[0]),
        score=scorer(task.metrics, data.labels),
    )
