"""Which trials of a study are stopped early, with regard to the sparsity that they have reached."""

from __future__ import annotations

from typing import Any

import numpy
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hydraprune.errors import UserError

# Attribute of a trial: the epoch from which it has its target sparsity.
TARGET_EPOCH = "target_epoch"


class EpochPruner(BasePruner):  # type: ignore[misc]
    """Stops a trial whose score after an epoch is among the lowest of those after the same epoch.

    While a model is less sparse than its target, its score says little of the one that it will have: a learning rate
    that is too low to recover from pruning looks best as long as little is pruned. So only the worst are stopped
    before the target is reached, and those below the median afterwards. Each is compared with trials that had reached
    theirs, or not, alike.

    Optuna's own pruners compare a trial's best score so far, which is the one before it was pruned.

    Args:
        startup: trials that must have been there at the same epoch before any is stopped.
        before_target: share of trials that are stopped at an epoch before their target sparsity is reached.
        at_target: and afterwards.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, startup: int = 4, before_target: float = 0.25, at_target: float = 0.5) -> None:
        if startup < 1:
            raise UserError("must be at least 1", key="startup", value=startup)
        for key, value in (("before_target", before_target), ("at_target", at_target)):
            if not 0 <= value <= 1:
                raise UserError("must be from 0 to 1", key=key, value=value)
        self._startup, self._shares = startup, {False: before_target, True: at_target}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial after its last epoch."""
        epoch = trial.last_step
        if epoch is None:
            return False
        at_target = _has_target(trial, epoch)
        settled = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        others = [
            other.intermediate_values[epoch]
            for other in settled
            if epoch in other.intermediate_values and _has_target(other, epoch) == at_target
        ]
        if len(others) < self._startup:
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        border = numpy.quantile([sign * value for value in others], self._shares[at_target])
        return bool(sign * trial.intermediate_values[epoch] < border)


def _has_target(trial: FrozenTrial, epoch: int) -> bool:
    known: Any = trial.user_attrs.get(TARGET_EPOCH, 0)
    return epoch >= float(known)
