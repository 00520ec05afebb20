"""Methods: how a plan chooses its units, and which pruner carries that out.

What `pruner` may name: a criterion (`criteria`), a post-training method (`posttraining`), or one of the two here.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.progressive import Transition
from hydraprune.sparsity.regularizers import Regularizer
from hydraprune.sparsity.schedules import Never, Schedule
from hydraprune.sparsity.validation import check_number

PrunerT = TypeVar("PrunerT", covariant=True)


class PrunerKinds(Protocol[PrunerT]):
    """The kinds of pruners that a method can ask for: `pruners.factory.PrunerFactory`, which has one for a plan."""

    def gradual(self, criterion: Any) -> PrunerT:
        """Prunes while training, by the scores of a `Criterion`."""

    def straight_through(self, method: Any) -> PrunerT:
        """Trains dense weights through a mask, as `SrSte` does."""

    def calibrated(self, method: Any) -> PrunerT:
        """Prunes once, with a `PostTraining` method."""

    def lock(self) -> PrunerT:
        """Keeps the zeros that there are."""


class MethodPlan(Protocol):
    """What a method may refuse of a `Plan`."""

    @property
    def schedule(self) -> Schedule | Never | None: ...

    @property
    def transition(self) -> Transition | None: ...

    @property
    def regularizer(self) -> Regularizer | None: ...


class Method(ABC):
    """A way to choose units."""

    # Whether a plan with it prunes anything.
    prunes: ClassVar[bool] = True
    # Whether the model must have zeros when training starts.
    needs_zeros: ClassVar[bool] = False
    # Whether a pruned unit may return, as one that scores higher than one that is kept.
    revives: bool = False

    @property
    def name(self) -> str:
        """The word for it in reports and messages: `snip_momentum` for `SnipMomentum`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def check_plan(self, plan: MethodPlan) -> None:  # noqa: B027 most methods take every plan
        """Refuse a schedule, transition or regularizer that the method would ignore.

        Raises:
            SparsityError: with the method, and what fits it.
        """

    @abstractmethod
    def make_pruner(self, factory: PrunerKinds[PrunerT]) -> PrunerT:
        """The pruner that carries out the factory's plan with this method.

        Raises:
            SparsityError: the plan is impossible with this method.
        """


@dataclass(frozen=True)
class LockZeros(Method):
    """No unit is chosen: weights that are zero when training starts stay zero."""

    needs_zeros = True

    @property
    def name(self) -> str:
        return "keep"  # as in reports of earlier versions

    def check_plan(self, plan: MethodPlan) -> None:
        refuse_transition_and_regularizer(plan, "pattern", "lock")

    def make_pruner(self, factory: PrunerKinds[PrunerT]) -> PrunerT:
        return factory.lock()


@dataclass(frozen=True)
class SrSte(Method):
    """Straight-through estimation with a sparse-refined term (SR-STE). Zhou et al. 2021, arXiv:2102.04010.

    The forward pass sees the weights under a mask, in which the cheapest units by magnitude are zero;
    its gradient moves all weights, and those under the mask decay towards zero besides:
    g + decay * (1 - mask) * w. The mask is chosen again before every step of the window, and fixed
    in the cooldown.

    Args:
        decay: of masked weights, at least 0; 0 is the plain straight-through estimator.

    Raises:
        SparsityError: it is not.
    """

    revives = True

    decay: float = 2e-4

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0, float("inf"), from_low=True)

    def check_plan(self, plan: MethodPlan) -> None:
        refuse_transition_and_regularizer(plan, "pruner", self.name)

    def make_pruner(self, factory: PrunerKinds[PrunerT]) -> PrunerT:
        return factory.straight_through(self)


def refuse_transition_and_regularizer(plan: MethodPlan, key: str, value: str) -> None:
    """Refuse a plan with a progressive transition or a regularizer, which the method `key=value` would ignore.

    Raises:
        SparsityError: with the method, and what fits it.
    """
    if plan.transition is not None and plan.transition.parts > 1:
        raise SparsityError("its masks change at once", key=key, value=value, cure="use progressive=none")
    if plan.regularizer is not None and plan.regularizer.acts:
        raise SparsityError("does not apply a regularizer", key=key, value=value, cure="use regularizer=none")
