"""Allocation of a target over layers: pools of layers that compete, each with a target of its own.

global: one pool. local (uniform): every layer gets the target. erk: wide layers get more of it.
Cap and floor bound every layer under each rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.selection import Selection, exact

# Halvings after which an interval of floats has no float left inside.
_HALVINGS = 200


@dataclass(frozen=True)
class LayerSize:
    """How large a layer is.

    Args:
        units: units of the pattern.
        shape: of the weight.
        size: what one of its units counts for in `units`.
    """

    units: int
    shape: tuple[int, ...]
    size: int = 1


def allot(selection: Selection, layers: Sequence[LayerSize], share: Fraction) -> list[tuple[list[int], Selection]]:
    """Pools of layers (indices), each with its own target and bounds.

    Raises:
        SparsityError: caps and floors leave no room for the target.
    """
    if selection.scope != "erk":
        return [(pool, selection) for pool in selection.pools(len(layers))]
    pools, overall = [], exact(selection.target_sparsity)
    for i, (goal, layer) in enumerate(zip(erk_goals(selection, layers, share), layers, strict=True)):
        target, initial = Fraction(goal, layer.units) * share, selection.initial_sparsity
        if initial:
            initial = float(exact(initial) * target / overall)
            if initial > target:  # rounded up
                initial = math.nextafter(initial, 0.0)
        pools.append(([i], replace(selection, target_sparsity=target, scope="local", initial_sparsity=initial)))
    return pools


def erk_goals(selection: Selection, layers: Sequence[LayerSize], share: Fraction) -> list[int]:
    """Units to prune per layer by the Erdos-Renyi-kernel rule: floor(all units x target) in all.

    A layer keeps a share of its units in proportion to (sum of its shape) / (product of its shape),
    bounded by floor and cap. Mocanu et al. 2018, arXiv:1707.04780; Evci et al. 2020, arXiv:1911.11134.

    Raises:
        SparsityError: caps and floors leave no room for the target.
    """
    units = [layer.units for layer in layers]
    budget = replace(selection, scope="global").budget(units, share)
    if not sum(budget.floors) <= budget.goal <= sum(budget.caps):
        raise SparsityError(
            f"needs {budget.goal} of {sum(units)} units, and floor={selection.floor} and cap={selection.cap} allow "
            f"{sum(budget.floors)} to {sum(budget.caps)}",
            key="target_sparsity",
            value=selection.target_sparsity,
        )
    raw = [sum(layer.shape) / math.prod(layer.shape) for layer in layers]

    def pruned(scale: float) -> list[float]:
        bounds = zip(units, raw, budget.floors, budget.caps, strict=True)
        return [min(max(n * (1 - scale * density), floor), cap) for n, density, floor, cap in bounds]

    low, high = 0.0, max(1 / density for density in raw)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(pruned(middle)) > budget.goal else (low, middle)
    return _whole(pruned(high), budget.goal, budget.floors, budget.caps)


def _whole(wanted: Sequence[float], goal: int, floors: Sequence[int], caps: Sequence[int]) -> list[int]:
    """Whole numbers close to those wanted that add up to `goal`: by largest remainder, within the bounds."""
    counts = [max(int(value), floor) for value, floor in zip(wanted, floors, strict=True)]
    order = sorted(range(len(counts)), key=lambda i: (counts[i] - wanted[i], i))
    while (missing := goal - sum(counts)) != 0:
        step = 1 if missing > 0 else -1
        free = [i for i in order if (counts[i] < caps[i] if step > 0 else counts[i] > floors[i])]
        for i in free[: abs(missing)] if step > 0 else free[::-1][: abs(missing)]:
            counts[i] += step
    return counts


def check(selection: Selection, layers: Sequence[LayerSize], share: Fraction, pattern: str) -> None:
    """Refuse a target that the pattern, the caps or the floors make impossible.

    Raises:
        SparsityError: naming the key, its value and the largest or smallest that would do.
    """
    if selection.scope == "erk":
        selection.check_share(share, pattern)
        erk_goals(selection, layers, share)
    else:
        selection.check([layer.units for layer in layers], share, pattern, [layer.size for layer in layers])
