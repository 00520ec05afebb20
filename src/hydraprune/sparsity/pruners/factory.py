"""The kinds of pruners, made for one plan. A method asks for the kind that carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.methods import SrSte
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.posttraining.base import Calibration, PostTraining
from hydraprune.sparsity.pruners.base import Pruner
from hydraprune.sparsity.pruners.gradual import Gradual
from hydraprune.sparsity.pruners.lock import Lock
from hydraprune.sparsity.pruners.post_training import Calibrated
from hydraprune.sparsity.pruners.straight_through import StraightThrough
from hydraprune.sparsity.schedules import Updates


@dataclass(frozen=True)
class PrunerFactory:
    """What a pruner is made from; a `Method` of your own may read it to make a `Pruner` of its own.

    Args:
        name, plan, updates, structures: see `Pruner`.
        modules: parameter name -> the module that holds the parameter.
        calibration: runs the model over calibration batches; None where there are none.
    """

    name: str
    plan: Plan
    updates: Updates
    structures: tuple[Structure, ...]
    modules: Mapping[str, nn.Module]
    calibration: Calibration | None

    def gradual(self, criterion: Criterion) -> Pruner:
        """Prunes while training, by scores."""
        return Gradual(self.name, self.plan, self.updates, self.structures, criterion)

    def straight_through(self, method: SrSte) -> Pruner:
        """Trains dense weights through a mask."""
        return StraightThrough(self.name, self.plan, self.updates, self.structures, method)

    def calibrated(self, method: PostTraining) -> Pruner:
        """Prunes once, by calibration batches."""
        return Calibrated(self.name, self.plan, self.updates, self.structures, method, self.modules, self.calibration)

    def lock(self) -> Pruner:
        """Keeps the zeros that there are."""
        return Lock(self.name, self.plan, self.updates, self.structures)
