"""Selection of the units to prune: exactly the k cheapest, by count and never by a threshold.

A threshold on scores would prune every unit that ties with it (a whole layer of constant scores);
counting does not. Of units that tie, those of lower index are pruned first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.shards import WHOLE, Shards
from hydraprune.sparsity.validation import check_choice, is_number


def exact(value: float | Fraction) -> Fraction:
    """The decimal that the user wrote: `exact(0.29) * 100 == 29`, whereas 0.29 * 100 < 29 in floats."""
    return Fraction(str(value))


def cheapest(costs: Tensor, count: int, sizes: Sequence[int] | None = None, shards: Shards = WHOLE) -> Tensor:
    """Bool mask of the `count` smallest of flat `costs` (float32, no NaN); ties go to the lower index.

    Args:
        count: over all processes.
        sizes: of the layers that lie one after the other in `costs`; None: one. Where they are sharded, the units of a
            layer that one process holds come before those of the next.
        shards: the processes that hold the layers.
    """
    if count <= 0:
        return torch.zeros_like(costs, dtype=torch.bool)
    if count >= shards.total(costs.numel()):
        return torch.ones_like(costs, dtype=torch.bool)
    keys = _ordered(costs, signed=bool(shards.any(~(costs.min() >= 0))))
    last = _smallest(keys, count, shards)
    chosen = keys <= last
    surplus = shards.total(int(chosen.sum())) - count
    if surplus:
        _drop_last(chosen, keys == last, surplus, sizes or [costs.numel()], shards)
    return chosen


def _ordered(costs: Tensor, signed: bool) -> Tensor:
    """int32 keys in the order of float32 costs: their bits, those below the sign flipped where it is set.

    Args:
        signed: whether any cost, of any process, is below 0.
    """
    bits = costs.view(torch.int32)
    if not signed:
        return bits.clamp(min=0)  # -0.0 and 0.0 are one cost
    bits = (costs + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _smallest(keys: Tensor, count: int, shards: Shards) -> Tensor:
    """The `count`-th smallest key over all processes, by its upper 16 bits and then by the lower ones.

    Two histograms of 65,536 counters are quicker than sorting, and those of several processes add up.
    """
    upper = (keys >> 16) + (1 << 15)
    reached = shards.summed(torch.bincount(upper, minlength=1 << 16)).cumsum(0)
    half = torch.searchsorted(reached, count)
    before = int(reached[half - 1]) if int(half) else 0
    among = keys[upper == half] & 0xFFFF
    reached = shards.summed(torch.bincount(among, minlength=1 << 16)).cumsum(0)
    lower = torch.searchsorted(reached, count - before)
    return (((half - (1 << 15)) << 16) + lower).to(torch.int32)


def _drop_last(chosen: Tensor, ties: Tensor, surplus: int, sizes: Sequence[int], shards: Shards) -> None:
    """Take the last `surplus` ties out of `chosen`, in place: the last in the order of layers and then of processes."""
    layers = torch.split(ties, list(sizes))
    counts = shards.gathered(torch.stack([layer.sum() for layer in layers]))
    in_order = counts.t().flatten()
    before = (in_order.cumsum(0) - in_order).view(len(sizes), -1)[:, shards.rank]
    own = counts[shards.rank]
    kept = (in_order.sum() - surplus - before).clamp(min=0).minimum(own)
    for part, layer, keep, have in zip(
        torch.split(chosen, list(sizes)), layers, kept.tolist(), own.tolist(), strict=True
    ):
        if keep < have:
            part[layer.nonzero().squeeze(1)[keep:]] = False


@dataclass(frozen=True)
class Budget:
    """How many units are pruned in one pool of layers at one update, and what bounds each layer.

    `count` are pruned now and `goal` at the last update. Every layer ends with at least its `floor`,
    so before that no more than `spare` units may be pruned beyond the floors of their layers: the
    rest of the goal is reserved. At the last update count = goal, and every floor is met exactly.
    """

    count: int
    goal: int
    floors: tuple[int, ...]
    caps: tuple[int, ...]

    @property
    def spare(self) -> int:
        """Units of the goal that no floor reserves."""
        return self.goal - sum(self.floors)


def choose(costs: Sequence[Tensor], budget: Budget, shards: Shards = WHOLE) -> list[Tensor]:
    """The cheapest units of several layers within a budget.

    The optimum under the budget's bounds, on one ranking of all units, so the choice does not
    depend on the order of the layers.

    Args:
        costs: per layer, flat [units]; finite, or minus infinity for units to prune in any case.
        shards: the processes that hold the layers; each gives the costs of its own units, and `budget` is of all.

    Returns:
        Per layer a flat bool tensor, True = prune; `budget.count` in all.

    Raises:
        SparsityError: a cost is NaN or infinite, or caps or floors rule out every such choice.
    """
    if budget.count > sum(budget.caps) or budget.spare < 0:
        raise SparsityError(
            f"{budget.count} units cannot be pruned within caps {budget.caps} and floors {budget.floors}"
        )
    pooled = torch.cat(list(costs))
    # Plus infinity marks units beyond a cap below, so no score may be infinite.
    # Compared in each process: a NaN might get lost among the others' numbers.
    if pooled.numel() and not bool(shards.all(pooled.max() < torch.inf)):
        raise SparsityError("a score is not finite", cure="look for a NaN or infinite gradient or weight")
    sizes = [layer.numel() for layer in costs]

    def of_all(values: Tensor, count: int) -> Tensor:
        return cheapest(values, count, sizes, shards)

    chosen = of_all(pooled, budget.count)
    if not any(budget.floors) and _within(chosen, sizes, budget.caps, shards):
        return list(torch.split(chosen, sizes))
    for own, layer, cap in zip(torch.split(pooled, sizes), costs, budget.caps, strict=True):
        if cap < shards.total(layer.numel()):
            own.masked_fill_(~cheapest(layer, cap, shards=shards), torch.inf)
    chosen = of_all(pooled, budget.count)
    if any(budget.floors):
        bounds = zip(costs, budget.floors, strict=True)
        reserved = torch.cat([cheapest(layer, floor, shards=shards) for layer, floor in bounds])
        if shards.total(int((chosen & ~reserved).sum())) > budget.spare:
            beyond = of_all(pooled.masked_fill(reserved, torch.inf), budget.spare)
            chosen = beyond | of_all(pooled.masked_fill(~reserved, torch.inf), budget.count - budget.spare)
    return list(torch.split(chosen, sizes))


def choose_sized(costs: Sequence[Tensor], sizes: Sequence[int], budget: Budget, shards: Shards = WHOLE) -> list[Tensor]:
    """`choose` where a unit of a layer counts for its size: the cheapest units that the budget has room for.

    Less than one unit of the budget is left; less than two where there are floors.

    Args:
        costs, shards: see `choose`.
        sizes: per layer, of one of its units; `budget` is in the same measure.
    """
    if all(size == 1 for size in sizes):
        return choose(costs, budget, shards)
    parts = [cost.repeat_interleave(size) for cost, size in zip(costs, sizes, strict=True)]
    chosen = choose(parts, budget, shards)
    return [pruned.view(-1, size).all(1) for pruned, size in zip(chosen, sizes, strict=True)]


def _within(chosen: Tensor, sizes: Sequence[int], caps: Sequence[int], shards: Shards) -> bool:
    counts = shards.summed(torch.stack([layer.sum() for layer in torch.split(chosen, list(sizes))])).tolist()
    return all(count <= cap for count, cap in zip(counts, caps, strict=True))


Scope = Literal["global", "local", "erk", "weights"]


@dataclass(frozen=True)
class Selection:
    """How much is pruned, and how it is spread over layers.

    Ratios are element sparsities as the user wrote them. Counts are units: k = floor(units * T),
    over each layer when `scope` is local (uniform) and over all layers of the pruner when global.
    Where units differ in size, such as channels of several layers, `weights` counts their weights
    instead, over all layers; less than one unit of the target is left (two with a floor). For N:M
    a unit is a group, so the ratios are divided by the pattern's share. `erk` gives each layer a
    target by its size (see `allocation`). `floor` and `cap` bound every layer.

    `initial_sparsity` is where the schedule begins; None: at the sparsity that the weights have
    when training starts, whose zeros are kept.

    Raises:
        SparsityError: a ratio is not a number within its range, or the scope is unknown.
    """

    target_sparsity: float | Fraction
    scope: Scope = "global"
    floor: float = 0.0
    cap: float = 0.98
    initial_sparsity: float | None = None

    def __post_init__(self) -> None:
        for key, value in (("target_sparsity", self.target_sparsity), ("floor", self.floor), ("cap", self.cap)):
            if not is_number(value) and not isinstance(value, Fraction):
                raise SparsityError("must be a number", key=key, value=value)
        # A fraction is a count that `allocation` made of a target: all units, where the cap allows that.
        all_units = isinstance(self.target_sparsity, Fraction) and self.target_sparsity == 1
        if not 0.0 <= self.target_sparsity < 1.0 and not all_units:
            raise SparsityError("must be at least 0 and below 1", key="target_sparsity", value=self.target_sparsity)
        if not 0.0 < self.cap <= 1.0:
            raise SparsityError("must be above 0 and at most 1", key="cap", value=self.cap)
        if not 0.0 <= self.floor <= self.cap:
            raise SparsityError(f"must be between 0 and cap={self.cap}", key="floor", value=self.floor)
        check_choice("scope", self.scope, ("global", "local", "erk", "weights"))
        initial = self.initial_sparsity
        if initial is not None and not (is_number(initial) and 0 <= initial <= self.target_sparsity):
            raise SparsityError(
                f"must be between 0 and target_sparsity={self.target_sparsity}, or null: what the weights have",
                key="initial_sparsity",
                value=initial,
            )

    def pools(self, layers: int) -> list[list[int]]:
        """Indices of the layers that compete with one another, where `scope` is not erk."""
        return [[index] for index in range(layers)] if self.scope == "local" else [list(range(layers))]

    def budget(
        self, units: Sequence[int], share: Fraction, ratio: float | None = None, sizes: Sequence[int] | None = None
    ) -> Budget:
        """The budget of one pool whose layers hold `units` each, of which one counts for `sizes`; None: for 1 each.

        Floors and caps are whole units.

        `ratio` is the element sparsity of the schedule now; None stands for the last update, whose
        sparsity is the target as an exact decimal.
        """
        total = sum(units)
        goal = int(total * exact(self.target_sparsity) / share)
        count = goal
        if ratio is not None:
            # Truncated as a float product, like the published tool, so that ramps agree unit by unit.
            count = min(goal, int(total * (ratio * share.denominator / share.numerator)))
        floor, cap = exact(self.floor) / share, min(Fraction(1), exact(self.cap) / share)
        counted = list(zip(units, sizes or [1] * len(units), strict=True))
        floors, caps = (tuple(int(n // size * bound) * size for n, size in counted) for bound in (floor, cap))
        return Budget(count, goal, floors, caps)

    def check_share(self, share: Fraction, pattern: str) -> None:
        """Refuse a target or floor above what the pattern allows.

        Raises:
            SparsityError: naming the key and its value.
        """
        for key, value in (("target_sparsity", self.target_sparsity), ("floor", self.floor)):
            if exact(value) > share:
                raise SparsityError(f"{pattern} zeroes at most {float(share):.4g} of the weights", key=key, value=value)

    def check(self, units: Sequence[int], share: Fraction, pattern: str, sizes: Sequence[int] | None = None) -> None:
        """Refuse a target that the pattern, the caps or the floors make impossible.

        Raises:
            SparsityError: naming the key, its value and the largest or smallest that would do.
        """
        self.check_share(share, pattern)
        for pool in self.pools(len(units)):
            held = [units[index] for index in pool]
            budget = self.budget(held, share, sizes=sizes and [sizes[index] for index in pool])
            counted = "weights" if self.scope == "weights" else "units"
            if budget.goal > sum(budget.caps):
                raise SparsityError(
                    f"needs {budget.goal} of {sum(held)} {counted}, but cap={self.cap} allows at most "
                    f"{sum(budget.caps)} ({self.scope} scope)",
                    key="target_sparsity",
                    value=self.target_sparsity,
                    cure="raise cap or lower the target",
                )
            if budget.spare < 0:
                raise SparsityError(
                    f"needs {sum(budget.floors)} of {sum(held)} {counted}, more than the {budget.goal} of "
                    f"target_sparsity={self.target_sparsity} ({self.scope} scope)",
                    key="floor",
                    value=self.floor,
                    cure="lower floor or raise the target",
                )
