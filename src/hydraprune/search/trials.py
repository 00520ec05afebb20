"""The trials of a study: asked for, compared while they run, and told what came of them. Optuna keeps them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import optuna
from optuna.samplers import GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from hydraprune.config.command_words import is_below
from hydraprune.config.identity import NOT_THE_RESULT
from hydraprune.config.schema import override_key
from hydraprune.errors import UserError, one_line
from hydraprune.results.study_record import Objective, StudyRecord, TrialRecord
from hydraprune.search.pruner import TARGET_EPOCH
from hydraprune.search.settings import OptunaStudy
from hydraprune.search.space import Space

log = logging.getLogger(__name__)

JOURNAL = "study.journal"
# Attributes in the storage: of a study, what its trials have in common, and which ones a killed study left behind;
# of a trial, its words, its run, and why it failed.
_SEARCH, _LOST, _WORDS, _HASH, _FOLDER, _WHY = "search", "lost", "words", "hash", "folder", "why"
# Those that keep nothing from one trial to the next but random numbers.
_WITHOUT_MEMORY = (TPESampler, RandomSampler, NSGAIISampler, NSGAIIISampler, GPSampler)
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Asked:
    """A trial that is to be run.

    Args:
        words: its overrides.
        reported: epochs whose score Optuna knows.
    """

    trial: Trial
    words: tuple[str, ...]
    reported: set[int] = field(default_factory=set)


class Trials:
    """The trials of one study.

    Args:
        settings: of the study.
        space: what is searched.
        objectives: with their directions.
        folder: of the sweep.

    Raises:
        UserError: the storage cannot be used, or holds a study of this name that searched something else.
    """

    def __init__(self, settings: OptunaStudy, space: Space, objectives: Sequence[Objective], folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._settings, self._space, self.objectives = settings, space, tuple(objectives)
        self._folder = folder
        self._study = _opened(settings, objectives, folder)
        self._check_search()
        for left in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._repeat(left)

    def _check_search(self) -> None:
        common: dict[str, Any] = {
            "words": sorted(word for word in self._space.shared if _changes_the_result(word)),
            "searched": [f"{key} {values}" for key, values in self._space.fingerprint.items()],
            "objectives": [each.name for each in self.objectives],
            # Of a storage that several sweeps may use.
            "folder": [] if self._settings.storage is None else [str(self._folder.resolve())],
        }
        before = self._study.user_attrs.get(_SEARCH)
        if before is None:
            self._study.set_user_attr(_SEARCH, common)
        elif before != common:
            names = [key for key in common if before.get(key) != common[key]]
            was = [item for key in names for item in before.get(key, []) if item not in common[key]]
            now = [item for key in names for item in common[key] if item not in before.get(key, [])]
            raise UserError(
                f"holds trials that are not to be compared with these, of other {' and '.join(names)} "
                f"({' '.join(was) or 'none'}; now {' '.join(now) or 'none'})",
                key=f"study {self._settings.name}",
                cure="type the same words, or begin another with sweep=NAME",
            )

    def _repeat(self, left: FrozenTrial) -> None:
        """Queue a trial of a killed study again: its run goes on from its checkpoint."""
        self._study.set_user_attr(_LOST, [*self._lost, left.number])
        self._study.enqueue_trial(left.params)
        self._study.tell(left.number, state=TrialState.FAIL)

    @property
    def _lost(self) -> list[int]:
        return list(self._study.user_attrs.get(_LOST, []))

    @property
    def _known(self) -> list[FrozenTrial]:
        """All trials but those that were queued again."""
        lost = set(self._lost)
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.number not in lost and trial.state != TrialState.WAITING]

    @property
    def settled(self) -> int:
        """Trials that finished or were stopped early."""
        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self._known)

    def ask(self) -> Asked:
        """The next trial; that of a killed study first."""
        seed = self._settings.seed
        # A study that was cut goes on with the numbers that it would have had.
        drawn = int(numpy.random.SeedSequence((seed, len(self._known))).generate_state(1)[0])
        sampler = self._settings.sampler(seed=drawn)
        self._study.sampler = sampler if isinstance(sampler, _WITHOUT_MEMORY) else self._settings.sampler(seed=seed)
        trial = self._study.ask(dict(self._space.searched))
        words = self._space.words(trial.params)
        trial.set_user_attr(_WORDS, list(words))
        return Asked(trial, words)

    def is_hopeless(self, asked: Asked, scores: Mapping[int, float]) -> bool:
        """Whether to stop a trial early.

        Args:
            scores: of its epochs so far; the first is 1.
        """
        news = self.report(asked, scores)
        return news and self._settings.pruner is not None and asked.trial.should_prune()

    def report(self, asked: Asked, scores: Mapping[int, float]) -> bool:
        """Record scores by epoch, of a study with one objective.

        Returns:
            Whether any was new.
        """
        news = {} if len(self.objectives) > 1 else {e: s for e, s in scores.items() if e not in asked.reported}
        for epoch, score in news.items():
            asked.trial.report(score, epoch)
        asked.reported.update(news)
        return bool(news)

    def place(self, asked: Asked, run: str, folder: str, target_epoch: float) -> None:
        """Record the run of a trial.

        Args:
            run: its hash.
            folder: relative to the sweep's.
            target_epoch: after which it has its target sparsity.
        """
        for key, value in ((_HASH, run), (_FOLDER, folder), (TARGET_EPOCH, target_epoch)):
            asked.trial.set_user_attr(key, value)

    def complete(self, asked: Asked, values: Sequence[float]) -> None:
        """Record what a trial reached, one value for each objective."""
        self._study.tell(asked.trial, list(values))

    def stop(self, asked: Asked) -> None:
        """Record that a trial was stopped early."""
        self._study.tell(asked.trial, state=TrialState.PRUNED)

    def fail(self, asked: Asked, why: str) -> None:
        """Record that a trial failed; it does not count towards the total."""
        asked.trial.set_user_attr(_WHY, why)
        self._study.tell(asked.trial, state=TrialState.FAIL)

    def record(self) -> StudyRecord:
        """What the trials have come to."""
        finished = any(trial.state == TrialState.COMPLETE for trial in self._known)
        best = {trial.number for trial in self._study.best_trials} if finished else set()
        # Of equal ones the first, unless they are a front.
        best = best if len(self.objectives) > 1 else set(sorted(best)[:1])
        return StudyRecord(
            self._settings.name,
            self._settings.trials,
            tuple(self.objectives),
            self._space.shared,
            self._space.described,
            tuple(_recorded(number, trial, trial.number in best) for number, trial in enumerate(self._known)),
        )


def _changes_the_result(word: str) -> bool:
    return not is_below(override_key(word), (*NOT_THE_RESULT, "runtime"))


def _opened(settings: OptunaStudy, objectives: Sequence[Objective], folder: Path) -> optuna.Study:
    try:
        return optuna.create_study(
            storage=_storage(settings, folder),
            study_name=settings.name,
            pruner=settings.pruner if settings.pruner is not None else optuna.pruners.NopPruner(),
            directions=[each.direction for each in objectives],
            load_if_exists=True,
        )
    except Exception as error:  # whatever a database and its driver raise
        raise UserError(
            f"cannot be used ({one_line(error)})",
            key="study.storage",
            value=settings.storage or folder / JOURNAL,
            cure="null keeps the trials in the sweep's folder",
        ) from None


def _storage(settings: OptunaStudy, folder: Path) -> Any:
    if settings.storage is not None:
        return settings.storage
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def _recorded(number: int, trial: FrozenTrial, best: bool) -> TrialRecord:
    known = trial.user_attrs
    return TrialRecord(
        number,
        _STATES.get(trial.state, "running"),
        trial.values if trial.state == TrialState.COMPLETE else None,
        {str(epoch): score for epoch, score in sorted(trial.intermediate_values.items())},
        tuple(known.get(_WORDS, ())),
        known.get(_HASH),
        known.get(_FOLDER),
        known.get(_WHY),
        best,
    )
