"""What a study prints and compares by: its objectives, its table, and the steps that early stops have saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hydraprune.results.plan_file import Planned
from hydraprune.results.study_record import TABLES, Objective, StudyRecord
from hydraprune.search.settings import LATENCY, SCORE, SPARSITY
from hydraprune.sweeps.tail import read_latest


def objectives_of(names: Sequence[str], metric: str, is_error: bool) -> tuple[Objective, ...]:
    """The objectives of a study.

    Args:
        names: of the settings.
        metric: the task's first one.
        is_error: whether a lower value of it is better.
    """
    known = {
        SCORE: Objective(SCORE, metric, "minimize" if is_error else "maximize"),
        SPARSITY: Objective(SPARSITY, "sparsity", "maximize"),
        LATENCY: Objective(LATENCY, "latency (ms)", "minimize"),
    }
    return tuple(known[name] for name in names)


def print_summary(record: StudyRecord, jobs: Iterable[Planned], folder: Path) -> None:
    """Print the table of a study, its best trials, and what early stops have saved.

    Args:
        jobs: the runs of its trials.
        folder: of the sweep.
    """
    print(f"\n{record.markdown()}")
    done = sum(trial.state in ("complete", "stopped") for trial in record.trials)
    if done < record.wanted:
        print(f"{done} of {record.wanted} trials: the same command goes on")
    for trial in record.best:
        pairs = zip(record.objectives, trial.values or (), strict=True)
        values = ", ".join(f"{objective.label} {value:.4g}" for objective, value in pairs)
        print(f"best   trial {trial.number}: {values}: {' '.join(record.searched_words(trial))}")
    if any(trial.state == "stopped" for trial in record.trials):
        print(_steps(record, jobs))
    print(f"Kept in {folder / TABLES[0]}, with .csv and .json beside it", flush=True)


def _steps(record: StudyRecord, jobs: Iterable[Planned]) -> str:
    """The optimizer steps of its trials, and those that they would have had without early stops."""
    settled = {trial.run for trial in record.trials if trial.state in ("complete", "stopped")}
    runs = [job for job in jobs if job.spec.hash in settled and job.steps]
    whole = sum(job.steps or 0 for job in runs)
    taken = sum(read_latest(job.directory).step for job in runs)
    return f"steps  {taken:,} of {whole:,} ({taken / max(1, whole):.0%}): trials were stopped early"
