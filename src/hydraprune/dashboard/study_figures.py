"""The figures of studies: the Pareto front of two objectives, or the best score so far over the trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydraprune.dashboard import study_charts
from hydraprune.dashboard.figure import Figure
from hydraprune.results.study_record import Objective, StudyRecord, TrialRecord

Row = dict[str, Any]


def study_figures(studies: Sequence[StudyRecord]) -> list[Figure]:
    """A figure per study that has a complete trial."""
    return [
        _front(study, number) if len(study.objectives) > 1 else _history(study, number)
        for number, study in enumerate(studies)
        if any(trial.values for trial in study.trials)
    ]


def _front(study: StudyRecord, number: int) -> Figure:
    first, second = study.objectives
    rows = [
        {**_row(study, trial), "x": trial.values[1], "y": trial.values[0], "front": trial.best}
        for trial in study.trials
        if trial.values
    ]
    best = [f"trial {trial.number}: {_values(study, trial)}" for trial in study.best]
    return Figure(
        f"study-{number}",
        f"{study.name}: {first.label} against {second.label}",
        f"All complete trials of {_counted(study)}. Filled and joined: the Pareto front, of which no trial is better "
        f"in one objective and as good in the other ({_wanted(first)}, {_wanted(second)}).",
        f"Pareto front: {'; '.join(best)}",
        study_charts.pareto_front(first.label, second.label, list(study.searched)),
        rows,
    )


def _history(study: StudyRecord, number: int) -> Figure:
    (objective,) = study.objectives
    rows, so_far = [], None
    for trial in study.trials:
        value = trial.values[0] if trial.values else next(reversed(list(trial.epochs.values())), None)
        if trial.values and (so_far is None or _is_better(trial.values[0], so_far, objective)):
            so_far = trial.values[0]
        rows.append({**_row(study, trial), "y": value, "so_far": so_far})
    best = "; ".join(f"trial {trial.number}: {_values(study, trial)}" for trial in study.best)
    return Figure(
        f"study-{number}",
        f"{study.name}: {objective.label} by trial",
        f"A mark per trial of {_counted(study)}: filled if it is complete; hollow, at its last score, if it was "
        f"stopped early. Line: the best so far ({_wanted(objective)}).",
        f"best: {best}",
        study_charts.best_so_far(objective.label, list(study.searched)),
        rows,
    )


def _row(study: StudyRecord, trial: TrialRecord) -> Row:
    searched = dict(word.partition("=")[::2] for word in study.searched_words(trial))
    return {"trial": trial.number, "state": trial.state, **searched}


def _counted(study: StudyRecord) -> str:
    states = [trial.state for trial in study.trials]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return f"{len(states)} ({', '.join(f'{count} {state}' for state, count in counts.items())})"


def _values(study: StudyRecord, trial: TrialRecord) -> str:
    pairs = zip(study.objectives, trial.values or (), strict=True)
    return ", ".join(f"{objective.label} {value:.4g}" for objective, value in pairs)


def _wanted(objective: Objective) -> str:
    return f"{objective.label}: {'higher' if objective.direction == 'maximize' else 'lower'} is better"


def _is_better(new: float, old: float, objective: Objective) -> bool:
    return new > old if objective.direction == "maximize" else new < old
