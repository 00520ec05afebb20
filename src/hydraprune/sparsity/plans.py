"""Plans: a pattern with its layers, its amounts, its method and its timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Coupling
from hydraprune.sparsity.layers import Layers
from hydraprune.sparsity.methods import LockZeros, Method
from hydraprune.sparsity.patterns import Block, NofM, Pattern, Reduce
from hydraprune.sparsity.patterns.ffn_channels import FfnChannels
from hydraprune.sparsity.patterns.heads import ROLES, Heads
from hydraprune.sparsity.progressive import AtOnce, Progressive, Transition
from hydraprune.sparsity.regularizers import Regularizer, Unregularized
from hydraprune.sparsity.schedules import Never, OneShot, Schedule
from hydraprune.sparsity.selection import Scope, Selection

# What the fields of a plan may be.
_KINDS: dict[str, tuple[type, ...]] = {
    "pattern": (Pattern, Heads, FfnChannels),
    "selection": (Selection,),
    "layers": (Layers,),
    "criterion": (Method,),
    "schedule": (Schedule, Never),
    "transition": (AtOnce, Progressive),
    "regularizer": (Regularizer,),
}


@dataclass(frozen=True)
class Plan:
    """What one pruner does. A field that is None is taken from the arguments of `completed`.

    Raises:
        SparsityError: a field is of another kind.
    """

    pattern: Coupling
    selection: Selection
    layers: Layers = field(default_factory=Layers)
    criterion: Method | None = None
    schedule: Schedule | Never | None = None
    transition: Transition | None = None
    regularizer: Regularizer | None = None

    def __post_init__(self) -> None:
        for key, kinds in _KINDS.items():
            value = getattr(self, key)
            if not isinstance(value, kinds) and (value is not None or key in ("pattern", "selection", "layers")):
                names = " or ".join(kind.__name__ for kind in kinds)
                raise SparsityError(f"must be a {names}, not {type(value).__name__}", key=key, value=value)

    def completed(
        self,
        criterion: Method,
        schedule: Schedule | Never,
        transition: Transition | None = None,
        regularizer: Regularizer | None = None,
    ) -> Plan:
        """This plan, with every field that is None taken from the arguments.

        Raises:
            SparsityError: the criterion or schedule is that of a run that prunes nothing.
        """
        plan = replace(
            self,
            criterion=self.criterion or criterion,
            schedule=self.schedule or schedule,
            transition=self.transition or transition or AtOnce(),
            regularizer=self.regularizer or regularizer or Unregularized(),
        )
        assert plan.criterion is not None
        assert plan.schedule is not None
        for key, prunes in (("pruner", plan.criterion.prunes), ("scheduler", plan.schedule.prunes)):
            if not prunes:
                raise SparsityError(
                    "prunes nothing",
                    key=key,
                    value="none",
                    cure=f"choose another for {plan.pattern.name}, or pattern=dense",
                )
        return plan


@dataclass(frozen=True)
class Plans:
    """The plans of a model's pruners by name; none of them for a dense model."""

    name: str
    parts: Mapping[str, Plan]

    @property
    def target_sparsity(self) -> float | None:
        """The target that all plans share; None when they differ or there are none, as where zeros are only kept."""
        targets = {
            None if plan.criterion is not None and plan.criterion.needs_zeros else float(plan.selection.target_sparsity)
            for plan in self.parts.values()
        }
        return targets.pop() if len(targets) == 1 else None


def custom(
    pattern: Coupling,
    target_sparsity: float | None = None,
    scope: Scope = "global",
    floor: float = 0.0,
    cap: float = 0.98,
    layers: Layers | None = None,
    pruner: Method | None = None,
    scheduler: Schedule | None = None,
    progressive: Transition | None = None,
    regularizer: Regularizer | None = None,
    initial_sparsity: float | None = None,
) -> Plans:
    """One plan for any pattern, a pattern of your own included.

    Args:
        target_sparsity: None: all that the pattern allows, where its `share` is below 1.
        scope, floor, cap, initial_sparsity: see `Selection`.
        layers: which layers; None: all of the allowed types.
        pruner, scheduler, progressive, regularizer: None: what `Plan.completed` gives.

    Raises:
        SparsityError: an amount is out of range.
    """
    if not isinstance(pattern, _KINDS["pattern"]):
        reason = f"must be a Pattern, Heads or FfnChannels, not {type(pattern).__name__}"
        raise SparsityError(reason, key="pattern", value=pattern)
    if target_sparsity is None and pattern.share == 1:
        raise SparsityError("must be a number", key="target_sparsity", value=None)
    target = pattern.share if target_sparsity is None else target_sparsity
    selection = Selection(target, scope, floor, cap, initial_sparsity)
    plan = Plan(pattern, selection, Layers() if layers is None else layers, pruner, scheduler, progressive, regularizer)
    return Plans(pattern.name, {pattern.name: plan})


# Keyword arguments of these four are keys of conf/pattern/, so each names them all.


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
    """Blocks of `rows` x `cols` (output x input channels; a side may be `channel`). See `Block`, `custom`."""
    shared = (layers, pruner, scheduler, progressive, regularizer, initial_sparsity)
    return custom(Block(rows, cols, reduce), target_sparsity, scope, floor, cap, *shared)


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
    """N:M groups that keep `keep` of every `of` columns; without a target all groups do. See `NofM`, `custom`."""
    shared = (layers, pruner, scheduler, progressive, regularizer, initial_sparsity)
    return custom(NofM(keep, of, reduce), target_sparsity, scope, floor, cap, *shared)


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
    """Whole attention heads; by default those of every attention block. See `Heads`, `custom`."""
    layers = Layers() if layers is None else layers
    if isinstance(layers, Layers) and set(layers.roles) in (set(), set(ROLES)) and not layers.include:
        layers = replace(layers, roles=("attention", "attention_output"))  # joint projections too
    shared = (layers, pruner, scheduler, progressive, regularizer, initial_sparsity)
    return custom(Heads(reduce), target_sparsity, scope, floor, cap, *shared)


def ffn_channels(
    target_sparsity: float,
    size: int = 1,
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
    """Whole channels of feed-forward networks; by default of every one. See `FfnChannels`, `custom`."""
    layers = Layers() if layers is None else layers
    if isinstance(layers, Layers) and not layers.roles and not layers.include:
        layers = replace(layers, roles=("ffn",))
    shared = (layers, pruner, scheduler, progressive, regularizer, initial_sparsity)
    return custom(FfnChannels(size, reduce), target_sparsity, scope, floor, cap, *shared)


def lock(layers: Layers | None = None) -> Plans:
    """The chosen layers keep every zero that they have when training starts; nothing else is pruned."""
    return Plans(
        "lock",
        {"lock": Plan(Block(1, 1), Selection(0.0), Layers() if layers is None else layers, LockZeros(), OneShot())},
    )


def mixed(
    parts: Mapping[str, Plans],
    target_sparsity: float | None = None,
    cap: float | None = None,
    reduce: Reduce | None = None,
) -> Plans:
    """Several plans on one model, by the names that the config gives them.

    The other arguments exist for the parts of a config to refer to; each part has its own. A weight
    in two parts is refused when the pruners are made.

    Raises:
        SparsityError: there is no part, or one of them is itself mixed.
    """
    plans: dict[str, Plan] = {}
    if not isinstance(parts, Mapping):
        raise SparsityError("must map names to patterns", key="parts", value=parts)
    for name, made in parts.items():
        if not isinstance(made, Plans):
            raise SparsityError(f"must be a pattern, not {type(made).__name__}", key=f"parts.{name}", value=made)
        if len(made.parts) != 1:
            raise SparsityError("must be one pattern", key=f"parts.{name}")
        plans[name] = next(iter(made.parts.values()))
    if not plans:
        raise SparsityError("a mixed pattern needs at least one part", key="parts", value={})
    return Plans("mixed", plans)


def slim(
    parts: Mapping[str, Plans],
    target_sparsity: float | None = None,
    cap: float | None = None,
    reduce: Reduce | None = None,
) -> Plans:
    """`mixed` under the name of its purpose: parts whose units `hydraprune slim` removes, heads and FFN channels.

    Raises:
        SparsityError: see `mixed`.
    """
    return replace(mixed(parts, target_sparsity, cap, reduce), name="slim")


def dense() -> Plans:
    """Nothing is pruned."""
    return Plans("dense", {})
