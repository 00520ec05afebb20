"""Which plans sharded weights admit: those of which each process can compute its own rows."""

from __future__ import annotations

from collections.abc import Sequence

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.layouts import ConvLayout, ExpertsLayout, LinearLayout
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.progressive import AtOnce
from hydraprune.sparsity.regularizers import Unregularized
from hydraprune.sparsity.schedules import Schedule
from hydraprune.sparsity.shards import is_sharded, parts_of

_WITHOUT = "prune without sharding"


def check_sharded(plan: Plan, structures: Sequence[Structure]) -> None:
    """Refuse a plan for sharded weights that needs the rows of several processes at once.

    Raises:
        SparsityError: a method that is more than scores of single weights, or a weight whose units lie on several
            processes.
    """
    members = [member for structure in structures for member in structure.members]
    sharded = [member for member in members if is_sharded(member.weight.parameter)]
    if not sharded:
        return
    if (found := _needs_whole_weights(plan, structures)) is not None:
        key, value, why = found
        raise SparsityError(
            f"{why}, and {sharded[0].weight.name} is sharded",
            key=key,
            value=value,
            cure="use a method that scores single weights while training, such as snip_momentum; or " + _WITHOUT,
        )
    for member in sharded:
        if (cut := _why_cut(member)) is not None:
            raise SparsityError(f"{member.weight.name} is sharded, and {cut}", key="pattern", value=member.pattern.name)


def _needs_whole_weights(plan: Plan, structures: Sequence[Structure]) -> tuple[str, str, str] | None:
    """(key, value, why) of something in a plan that looks at whole weights; None if nothing does."""
    criterion, schedule = plan.criterion, plan.schedule
    transition, regularizer = plan.transition or AtOnce(), plan.regularizer or Unregularized()
    if criterion is not None and (not isinstance(criterion, Criterion) or criterion.regrows):
        return "criterion", str(criterion.name), "this method chooses by more than the scores of single weights"
    if isinstance(schedule, Schedule) and schedule.by_scores:
        return "scheduler", "threshold", "a threshold looks at all scores"
    if not isinstance(transition, AtOnce):
        return "progressive", type(transition).__name__.lower(), "the parts of blocks are planned over whole weights"
    if not isinstance(regularizer, Unregularized):
        return "regularizer", regularizer.name, "a regularizer shrinks whole weights"
    if any(len(structure.members) > 1 for structure in structures):
        return "pattern", str(plan.pattern.name), "a unit is of several weights"
    return None


def _why_cut(member: Member) -> str | None:
    """Why units of a sharded weight lie on several processes, and what to do about it; None if each is on one."""
    weight, pattern = member.weight, member.pattern
    shape, first = weight.view_shape, int(weight.parameter.shape[0])
    unit = pattern.unit_shape(shape)
    if unit is None:
        return f"its units are no rectangles of rows that lie together; {_WITHOUT}"
    layout = weight.layout
    if not (isinstance(layout, (LinearLayout, ConvLayout)) or layout == ExpertsLayout()):
        return f"its first dimension is not that of its rows; {_WITHOUT}"
    entries, processes = parts_of(weight.parameter)
    if entries * (processes - 1) >= first:
        return f"of its {first} rows the last of {processes} processes holds none; exclude it, or use fewer processes"
    cut = entries * (shape[0] // first)
    if cut % unit[0] and cut < shape[0]:
        return f"is cut after every {cut} rows, in the middle of units of {unit[0]}; use another number of processes"
    return None
