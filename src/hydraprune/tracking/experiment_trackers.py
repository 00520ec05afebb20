"""Trackers over libraries besides W&B: TensorBoard, MLflow and trackio. Each is imported only when a config names it.

Metrics have the names of metrics.jsonl. A run is found by its hash: one that is resumed goes on in the same place.
"""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from hydraprune.errors import UserError
from hydraprune.tracking.base import About, BaseTracker, Outcome
from hydraprune.tracking.wandb_tables import report_summary

log = logging.getLogger(__name__)

# MLflow's limit for a parameter's value.
_LONGEST_PARAMETER = 6000
# Parameters of one request, by MLflow's limit.
_MOST_AT_ONCE = 100
_HASH_TAG = "hydraprune.hash"


class TensorBoard(BaseTracker):
    """Writes event files to `tensorboard/` in the run's folder: `tensorboard --logdir outputs`.

    Raises:
        UserError: the package `tensorboard` is not installed.
    """

    def __init__(self) -> None:
        _package("tensorboard", "tensorboard")
        self._writer: Any = None

    def start(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps that an interrupted run logged beyond its checkpoint are hidden.
        purged = about.done + 1 if about.done else 0
        self._writer = SummaryWriter(str(about.directory / "tensorboard"), purge_step=purged)
        lines = "\n".join(f"    {key}: {value}" for key, value in _flat(about.config))
        self._writer.add_text("config", f"{about.name}, {about.group}\n\n{lines}", about.done)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def end(self, outcome: Outcome) -> None:
        for name, value in _results(outcome):
            self._writer.add_scalar(name, value, outcome.report.get("steps") or 0)

    def close(self, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow(BaseTracker):
    """Logs to MLflow: an experiment with a run for each of ours; the cell, phase and hash are tags.

    Args:
        uri: of the tracking server or a database; None: `MLFLOW_TRACKING_URI`, or MLflow's default.
        experiment: its name; created if needed.

    Raises:
        UserError: the package `mlflow` is not installed.
    """

    def __init__(self, uri: str | None = None, experiment: str = "hydraprune") -> None:
        self._mlflow: Any = _package("mlflow", "mlflow")
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._run = ""

    def start(self, about: About) -> None:
        self._client = self._mlflow.MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        tags = {
            _HASH_TAG: about.id,
            "group": about.group,
            "phase": about.job_type,
            **dict.fromkeys(about.tags, "true"),
        }
        earlier = self._client.search_runs([experiment], f"tags.`{_HASH_TAG}` = '{about.id}'", max_results=1)
        if earlier and about.done:
            self._run = earlier[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(experiment, tags=tags, run_name=about.name).info.run_id
        made: Any = self._mlflow.entities.Param
        parameters = [made(key, str(value)[:_LONGEST_PARAMETER]) for key, value in _flat(about.config)]
        for start in range(0, len(parameters), _MOST_AT_ONCE):
            self._client.log_batch(self._run, params=parameters[start : start + _MOST_AT_ONCE])

    def log(self, values: Mapping[str, float], step: int) -> None:
        now, made = round(1000 * time.time()), self._mlflow.entities.Metric
        finite = [made(name, value, now, step) for name, value in values.items() if math.isfinite(value)]
        self._client.log_batch(self._run, metrics=finite)

    def end(self, outcome: Outcome) -> None:
        self.log(dict(_results(outcome)), int(outcome.report.get("steps") or 0))

    def close(self, error: BaseException | None) -> None:
        if self._run:
            self._client.set_terminated(self._run, "FINISHED" if error is None else "FAILED")


class Trackio(BaseTracker):
    """Logs to trackio: a project with a run for each of ours, grouped by cell: `trackio show`.

    Args:
        project: its name.
        space: id of a Space on the hub to log to; None: on this machine.

    Raises:
        UserError: the package `trackio` is not installed.
    """

    def __init__(self, project: str = "hydraprune", space: str | None = None) -> None:
        self._trackio: Any = _package("trackio", "trackio")
        self._project, self._space = project, space
        self._started = False

    def start(self, about: About) -> None:
        more = {} if self._space is None else {"space_id": self._space}
        config = dict(_flat(about.config)) | {"hash": about.id, "phase": about.job_type}
        name, resume = f"{about.name} {about.id}", "allow"
        self._trackio.init(self._project, name=name, group=about.group, config=config, resume=resume, **more)
        self._started = True

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def end(self, outcome: Outcome) -> None:
        self._trackio.log(dict(_results(outcome)))

    def close(self, error: BaseException | None) -> None:
        if self._started:
            self._trackio.finish()


def _package(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = f"needs the package {package}, which cannot be imported ({error})"
        raise UserError(reason, key="tracker._target_", value=module, cure=f"pip install {package}") from None


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all values of a config."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _results(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """The numbers of the report under the names that W&B's summary has, such as `final/accuracy`."""
    for name, value in report_summary(outcome.report).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)
