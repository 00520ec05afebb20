"""What the files of a trial say: its scores by epoch, its metric and its latency."""

from __future__ import annotations

from hydraprune.data.metric_direction import is_error
from hydraprune.data.metrics import metric_name
from hydraprune.errors import UserError
from hydraprune.results.bench_report import load_bench
from hydraprune.results.curves import read_history
from hydraprune.results.measurements import measured
from hydraprune.results.plan_file import Planned
from hydraprune.sweeps.plan import Job


def epochs_of(run: Planned, metric: str) -> dict[int, float]:
    """Epoch -> score after it of a run that has ended, from its `metrics.jsonl`."""
    history = read_history(run.directory)
    epochs = dict(history.get("epoch", ()))
    return {int(epochs[step]): value for step, value in history.get(f"eval/{metric}", ()) if step in epochs}


def metric_of(job: Job) -> tuple[str, bool]:
    """The headline metric of a job's task, and whether it is an error."""
    assert job.experiment is not None  # a job whose config is valid
    name = metric_name(job.experiment.components.task.metrics[0])
    return name, is_error(name)


def target_epoch(job: Job, run: Planned) -> float:
    """The epochs after which a job has its target sparsity, by its schedules; 0 where nothing is pruned."""
    if job.experiment is None or not run.steps:
        return 0.0
    components = job.experiment.components
    per_epoch = run.steps / components.settings.epochs
    schedules = [plan.schedule for plan in components.plans.parts.values() if plan.schedule is not None]
    # An update comes before its step.
    return max(((found.over(run.steps, round(per_epoch)).last + 1) / per_epoch for found in schedules), default=0.0)


def latency_of(run: Planned, folder: str) -> float | None:
    """Milliseconds of a call of a finished run's model, from its bench; None without one.

    Args:
        folder: of the bench, in that of the run.
    """
    report, place = run.finished(), run.directory / folder
    try:
        bench = load_bench(place)
    except UserError:
        return None
    if bench is None or report is None:
        return None
    found = measured((report,), {place: bench}).measurements
    return min((1e3 * each.seconds for each in found), default=None)
