"""What is to be pruned, how, and how far? Plans: a pattern with its layers, amounts and timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from hydraprune.sparsity.criteria import Criterion, Unscored
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Layers
from hydraprune.sparsity.patterns import Block, NofM, Pattern, Reduce
from hydraprune.sparsity.schedules import Never, Schedule
from hydraprune.sparsity.selection import Selection


@dataclass(frozen=True)
class Plan:
    """One pruner's orders. A criterion or schedule left None is the one that all parts share."""

    pattern: Pattern
    selection: Selection
    layers: Layers = field(default_factory=Layers)
    criterion: Criterion | None = None
    schedule: Schedule | Never | None = None

    def completed(self, criterion: Criterion, schedule: Schedule | Never) -> Plan:
        """This plan with what it does not say itself taken from the arguments.

        Raises:
            SparsityError: what it would get is the criterion or schedule of a run that prunes nothing.
        """
        plan = replace(self, criterion=self.criterion or criterion, schedule=self.schedule or schedule)
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


def _single(pattern: Pattern, selection: Selection, layers: Layers | None, extra: tuple[object, object]) -> Plans:
    criterion, schedule = extra
    plan = Plan(pattern, selection, layers or Layers(), criterion, schedule)  # type: ignore[arg-type]
    return Plans(pattern.name, {pattern.name: plan})


def block(
    rows: int | Literal["channel"],
    cols: int | Literal["channel"],
    target_sparsity: float,
    scope: Literal["global", "local"] = "global",
    floor: float = 0.0,
    cap: float = 0.98,
    reduce: Reduce = "mean",
    layers: Layers | None = None,
    pruner: Criterion | None = None,
    scheduler: Schedule | None = None,
) -> Plans:
    """Blocks of `rows` x `cols` (output x input channels; a side may be `channel`). See `Block`, `Selection`."""
    selection = Selection(target_sparsity, scope, floor, cap)
    return _single(Block(rows, cols, reduce), selection, layers, (pruner, scheduler))


def n_of_m(
    keep: int,
    of: int,
    target_sparsity: float | None = None,
    scope: Literal["global", "local"] = "global",
    floor: float = 0.0,
    cap: float = 0.98,
    reduce: Reduce = "mean",
    layers: Layers | None = None,
    pruner: Criterion | None = None,
    scheduler: Schedule | None = None,
) -> Plans:
    """N:M groups that keep `keep` of every `of` columns; no target means all of them. See `NofM`, `Selection`."""
    pattern = NofM(keep, of, reduce)
    selection = Selection(pattern.share if target_sparsity is None else target_sparsity, scope, floor, cap)
    return _single(pattern, selection, layers, (pruner, scheduler))


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
