"""What is to be pruned, how, and how far? Plans: a pattern with its layers, amounts and timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from hydraprune.sparsity.criteria import Criterion, Unscored
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Layers
from hydraprune.sparsity.methods import Keep, SrSte
from hydraprune.sparsity.patterns import Block, NofM, Pattern, Reduce
from hydraprune.sparsity.patterns.heads import ROLES, Heads
from hydraprune.sparsity.posttraining.base import PostTraining
from hydraprune.sparsity.progressive import AtOnce, Transition
from hydraprune.sparsity.regularizers import Regularizer, Unregularized
from hydraprune.sparsity.schedules import Never, OneShot, Schedule
from hydraprune.sparsity.selection import Scope, Selection

# How units are chosen: step by step by a criterion, once by calibration batches, or in a way of its own.
Method = Criterion | PostTraining | SrSte | Keep


@dataclass(frozen=True)
class Plan:
    """One pruner's orders. What is left None is what all parts share."""

    pattern: Pattern | Heads
    selection: Selection
    layers: Layers = field(default_factory=Layers)
    criterion: Method | None = None
    schedule: Schedule | Never | None = None
    transition: Transition | None = None
    regularizer: Regularizer | None = None

    def completed(
        self,
        criterion: Method,
        schedule: Schedule | Never,
        transition: Transition | None = None,
        regularizer: Regularizer | None = None,
    ) -> Plan:
        """This plan with what it does not say itself taken from the arguments.

        Raises:
            SparsityError: what it would get is the criterion or schedule of a run that prunes nothing.
        """
        plan = replace(
            self,
            criterion=self.criterion or criterion,
            schedule=self.schedule or schedule,
            transition=self.transition or transition or AtOnce(),
            regularizer=self.regularizer or regularizer or Unregularized(),
        )
        if isinstance(plan.criterion, Unscored):
            raise SparsityError(f"pruner=none prunes nothing; choose another for {plan.pattern.name}, or pattern=dense")
        if isinstance(plan.schedule, Never):
            raise SparsityError(
                f"scheduler=none prunes nothing; choose another for {plan.pattern.name}, or pattern=dense"
            )
        return plan


@dataclass(frozen=True)
class Plans:
    """What a model's pruners are to do, by name; none of them for a dense model."""

    name: str
    parts: Mapping[str, Plan]

    @property
    def target_sparsity(self) -> float | None:
        """The target that all parts share; None when they differ or there are none."""
        targets = {float(plan.selection.target_sparsity) for plan in self.parts.values()}
        return targets.pop() if len(targets) == 1 else None


def _single(plan: Plan) -> Plans:
    return Plans(plan.pattern.name, {plan.pattern.name: plan})


def block(
    rows: int | Literal["channel"],
    cols: int | Literal["channel"],
    target_sparsity: float,
    scope: Scope = "global",
    floor: float = 0.0,
    cap: float = 0.98,
    reduce: Reduce = "mean",
    layers: Layers | None = None,
    pruner: Method | None = None,
    scheduler: Schedule | None = None,
    progressive: Transition | None = None,
    regularizer: Regularizer | None = None,
    initial_sparsity: float | None = None,
) -> Plans:
    """Blocks of `rows` x `cols` (output x input channels; a side may be `channel`). See `Block`, `Selection`."""
    selection = Selection(target_sparsity, scope, floor, cap, initial_sparsity)
    pattern = Block(rows, cols, reduce)
    return _single(Plan(pattern, selection, layers or Layers(), pruner, scheduler, progressive, regularizer))


def n_of_m(
    keep: int,
    of: int,
    target_sparsity: float | None = None,
    scope: Scope = "global",
    floor: float = 0.0,
    cap: float = 0.98,
    reduce: Reduce = "mean",
    layers: Layers | None = None,
    pruner: Method | None = None,
    scheduler: Schedule | None = None,
    progressive: Transition | None = None,
    regularizer: Regularizer | None = None,
    initial_sparsity: float | None = None,
) -> Plans:
    """N:M groups that keep `keep` of every `of` columns; no target means all of them. See `NofM`, `Selection`."""
    pattern = NofM(keep, of, reduce)
    target = pattern.share if target_sparsity is None else target_sparsity
    selection = Selection(target, scope, floor, cap, initial_sparsity)
    return _single(Plan(pattern, selection, layers or Layers(), pruner, scheduler, progressive, regularizer))


def heads(
    target_sparsity: float,
    scope: Scope = "global",
    floor: float = 0.0,
    cap: float = 0.98,
    reduce: Reduce = "mean",
    layers: Layers | None = None,
    pruner: Method | None = None,
    scheduler: Schedule | None = None,
    progressive: Transition | None = None,
    regularizer: Regularizer | None = None,
    initial_sparsity: float | None = None,
) -> Plans:
    """Whole attention heads; with no layers named, those of every attention block. See `Heads`, `Selection`."""
    selection = Selection(target_sparsity, scope, floor, cap, initial_sparsity)
    layers = layers or Layers()
    if not layers.roles and not layers.include:
        layers = replace(layers, roles=ROLES)
    return _single(Plan(Heads(reduce), selection, layers, pruner, scheduler, progressive, regularizer))


def lock(layers: Layers | None = None) -> Plans:
    """Every zero that the chosen layers have when training starts is kept; nothing else is pruned."""
    return Plans("lock", {"lock": Plan(Block(1, 1), Selection(0.0), layers or Layers(), Keep(), OneShot())})


def mixed(
    parts: Mapping[str, Plans],
    target_sparsity: float | None = None,
    cap: float | None = None,
    reduce: Reduce | None = None,
) -> Plans:
    """Several plans on one model, by the name of the part.

    The other arguments are there for the parts of a config to refer to; each part carries its
    own. A weight in two parts is refused when the pruners are made.
    """
    plans: dict[str, Plan] = {}
    for name, part in parts.items():
        if len(part.parts) != 1:
            raise SparsityError(f"parts.{name}: must be one block or N:M pattern")
        plans[name] = next(iter(part.parts.values()))
    if not plans:
        raise SparsityError("parts={}: a mixed pattern needs at least one part")
    return Plans("mixed", plans)


def dense() -> Plans:
    """Nothing is pruned."""
    return Plans("dense", {})
