"""Which units go? Exactly k cheapest, by count and never by a threshold.

A score threshold prunes every tie with it (constant scores would lose a whole layer); counting
does not. Ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError


def exact(value: float | Fraction) -> Fraction:
    """The decimal that the user wrote: `exact(0.29) * 100 == 29`, where 0.29 * 100 < 29 in floats."""
    return Fraction(str(value))


def cheapest(costs: Tensor, count: int) -> Tensor:
    """Bool mask of the `count` smallest of flat `costs` (float32, no NaN); ties go to the lower index."""
    if count <= 0:
        return torch.zeros_like(costs, dtype=torch.bool)
    if count >= costs.numel():
        return torch.ones_like(costs, dtype=torch.bool)
    keys = _ordered(costs)
    last = _smallest(keys, count)
    chosen = keys <= last
    surplus = int(chosen.sum()) - count
    if surplus:
        ties = (keys == last).nonzero().squeeze(1)
        chosen[ties[-surplus:]] = False
    return chosen


def _ordered(costs: Tensor) -> Tensor:
    """int32 keys in the order of float32 costs: their bits, those below the sign flipped where it is set."""
    bits = costs.view(torch.int32)
    if float(costs.min()) >= 0:
        return bits.clamp(min=0)  # -0.0 and 0.0 are one cost
    bits = (costs + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _smallest(keys: Tensor, count: int) -> Tensor:
    """The `count`-th smallest key, by its upper 16 bits and then among those that share them.

    A count, not a sort of all: scores spread over thousands of upper halves.
    """
    upper = (keys >> 16) + (1 << 15)
    reached = torch.bincount(upper, minlength=1 << 16).cumsum(0)
    half = torch.searchsorted(reached, count)
    before = int(reached[half - 1]) if int(half) else 0
    return keys[upper == half].sort().values[count - before - 1]


@dataclass(frozen=True)
class Budget:
    """How many units go in one pool of layers at one update, and what bounds each layer.

    `count` go now and `goal` at the last update. Every layer ends with at least its `floor`, so
    before that no more than `spare` units may go beyond the floors of their layers: the rest of
    the goal is promised. At the last update count = goal, and the promise is kept exactly.
    """

    count: int
    goal: int
    floors: tuple[int, ...]
    caps: tuple[int, ...]

    @property
    def spare(self) -> int:
        """Units of the goal that no floor has a claim on."""
        return self.goal - sum(self.floors)


def choose(costs: Sequence[Tensor], budget: Budget) -> list[Tensor]:
    """The cheapest units of several layers within a budget.

    The optimum under the budget's bounds, on one ranking of all units; so the choice does not
    depend on which layer is looked at first.

    Args:
        costs: per layer, flat [units]; finite, or minus infinity for what goes in any case.

    Returns:
        Per layer a flat bool tensor, True = prune; `budget.count` in all.

    Raises:
        SparsityError: a cost is NaN or infinite, or the caps or floors leave no such choice.
    """
    if budget.count > sum(budget.caps) or budget.spare < 0:
        raise SparsityError(f"{budget.count} units cannot go within caps {budget.caps} and floors {budget.floors}")
    pooled = torch.cat(list(costs))
    # Plus infinity is how a unit beyond the cap is barred below; a score must not look like it.
    if pooled.numel() and not float(pooled.max()) < torch.inf:
        raise SparsityError("a score is not finite; look for a NaN or infinite gradient or weight")
    sizes = [layer.numel() for layer in costs]
    chosen = cheapest(pooled, budget.count)
    if not any(budget.floors) and _within(chosen, sizes, budget.caps):
        return list(torch.split(chosen, sizes))
    for part, layer, cap in zip(torch.split(pooled, sizes), costs, budget.caps, strict=True):
        if cap < layer.numel():
            part.masked_fill_(~cheapest(layer, cap), torch.inf)
    chosen = cheapest(pooled, budget.count)
    if any(budget.floors):
        promised = torch.cat([cheapest(layer, floor) for layer, floor in zip(costs, budget.floors, strict=True)])
        if int((chosen & ~promised).sum()) > budget.spare:
            beyond = cheapest(pooled.masked_fill(promised, torch.inf), budget.spare)
            chosen = beyond | cheapest(pooled.masked_fill(~promised, torch.inf), budget.count - budget.spare)
    return list(torch.split(chosen, sizes))


def _within(chosen: Tensor, sizes: Sequence[int], caps: Sequence[int]) -> bool:
    counts = torch.stack([part.sum() for part in torch.split(chosen, list(sizes))]).tolist()
    return all(count <= cap for count, cap in zip(counts, caps, strict=True))


Scope = Literal["global", "local", "erk"]


@dataclass(frozen=True)
class Selection:
    """How much goes, and how it is spread over layers.

    Ratios are element sparsities as the user wrote them. Counts are units: k = floor(units * T),
    over each layer when `scope` is local (uniform) and over all layers of the pruner when global;
    for N:M a unit is a group, so the ratios are divided by the pattern's share. `erk` gives each
    layer a target by its size (see `allocation`). `floor` and `cap` bound every layer.

    `initial_sparsity` is where the schedule begins; None: at what the weights have when training
    starts, which they keep.
    """

    target_sparsity: float | Fraction
    scope: Scope = "global"
    floor: float = 0.0
    cap: float = 0.98
    initial_sparsity: float | None = None

    def __post_init__(self) -> None:
        for key, value in (("target_sparsity", self.target_sparsity), ("floor", self.floor), ("cap", self.cap)):
            if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
                raise SparsityError(f"{key}={value}: must be a number")
        if not 0.0 <= self.target_sparsity < 1.0:
            raise SparsityError(f"target_sparsity={self.target_sparsity}: must be at least 0 and below 1")
        if not 0.0 < self.cap <= 1.0:
            raise SparsityError(f"cap={self.cap}: must be above 0 and at most 1")
        if not 0.0 <= self.floor <= self.cap:
            raise SparsityError(f"floor={self.floor}: must be between 0 and cap={self.cap}")
        if self.scope not in ("global", "local", "erk"):
            raise SparsityError(f"scope={self.scope}: must be global, local or erk")
        initial = self.initial_sparsity
        if initial is not None and not (
            isinstance(initial, (int, float)) and not isinstance(initial, bool) and 0 <= initial <= self.target_sparsity
        ):
            raise SparsityError(
                f"initial_sparsity={initial}: must be between 0 and target_sparsity={self.target_sparsity}, or null: "
                f"what the weights have"
            )

    def pools(self, layers: int) -> list[list[int]]:
        """Indices of the layers that compete with one another, by a scope of global or local."""
        return [list(range(layers))] if self.scope == "global" else [[index] for index in range(layers)]

    def budget(self, units: Sequence[int], share: Fraction, ratio: float | None = None) -> Budget:
        """The budget of one pool whose layers hold `units` each.

        `ratio` is the element sparsity that the schedule asks for now; None is the last update,
        which asks for the target as an exact decimal.
        """
        total = sum(units)
        goal = int(total * exact(self.target_sparsity) / share)
        count = goal
        if ratio is not None:
            # Truncated as a float product, as the published tool does, so that ramps agree unit by unit.
            count = min(goal, int(total * (ratio * share.denominator / share.numerator)))
        floor, cap = exact(self.floor) / share, min(Fraction(1), exact(self.cap) / share)
        return Budget(count, goal, tuple(int(n * floor) for n in units), tuple(int(n * cap) for n in units))

    def check(self, units: Sequence[int], share: Fraction, pattern: str) -> None:
        """Refuse a target that the pattern, the caps or the floors make impossible.

        Raises:
            SparsityError: naming the key, its value and the largest or smallest that would do.
        """
        target = exact(self.target_sparsity)
        if target > share:
            raise SparsityError(
                f"target_sparsity={self.target_sparsity}: {pattern} zeroes at most {float(share):.4g} of the weights"
            )
        if exact(self.floor) > share:
            raise SparsityError(f"floor={self.floor}: {pattern} zeroes at most {float(share):.4g} of the weights")
        for pool in self.pools(len(units)):
            sizes = [units[index] for index in pool]
            budget = self.budget(sizes, share)
            if budget.goal > sum(budget.caps):
                raise SparsityError(
                    f"target_sparsity={self.target_sparsity}: needs {budget.goal} of {sum(sizes)} units, but "
                    f"cap={self.cap} lets at most {sum(budget.caps)} go ({self.scope} scope); raise cap or lower the "
                    f"target"
                )
            if budget.spare < 0:
                raise SparsityError(
                    f"floor={self.floor}: asks for {sum(budget.floors)} of {sum(sizes)} units, more than the "
                    f"{budget.goal} of target_sparsity={self.target_sparsity} ({self.scope} scope); lower floor or "
                    f"raise the target"
                )
