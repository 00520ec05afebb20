"""The dense model that a sparse run starts from: found finished, or trained first."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hydraprune.results.report import RunReport
from hydraprune.runs.directory import finished
from hydraprune.runs.experiment import Experiment

log = logging.getLogger(__name__)


def dense_model(
    experiment: Experiment, train: Callable[[Experiment], RunReport]
) -> tuple[str | None, RunReport | None]:
    """The dense model for a run, trained by `train` if there is none yet.

    Returns:
        (its folder or id, its report): (None, None) for a dense run, which starts from no dense model;
        no report for a model that the user names.
    """
    dense = experiment.dense
    if dense is None:
        return experiment.dense_source, None
    report = finished(dense)
    if report is None:
        log.info("No dense %s for %s yet: training it first, in %s", dense.spec.model, dense.spec.task, dense.directory)
        report = train(dense)
    else:
        log.info("Dense model: %s", dense.directory)
    return str(dense.directory / "model"), report
