"""The published method, slowly: what the sparsity core is held against where no recorded masks exist.

Written from a description of what Neural Compressor 2.6 does, in its words and not from our code: a block
is `NxM`, and `N:M` counts the weights *removed* from each group of M columns. Plain loops over one block
at a time, in float64. Only one difference of docs/differences.md is built in: the last update asks for
the target as the decimal typed, where theirs may lose a block to a rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Method:
    """One entry of the tool's configuration. Steps are optimizer steps, counted from 0."""

    pattern: str = "4x1"
    criterion: str = "snip_momentum"  # or magnitude, gradient, snip
    reduce: str = "mean"  # or sum, max
    scope: str = "global"  # or local
    decay: str = "exp"  # or linear, cos, cube
    target: float = 0.8
    start: int = 2
    end: int = 14
    frequency: int = 3
    cap: float = 0.98
    floor: float = 0.0

    @property
    def groups(self) -> bool:
        """Whether the pattern is N:M."""
        return ":" in self.pattern

    @property
    def removed_of(self) -> tuple[int, int]:
        """(removed, group size) of an N:M pattern; (1, 1) of blocks, which go as a whole."""
        if not self.groups:
            return 1, 1
        removed, of = self.pattern.split(":")
        return int(removed), int(of)

    @property
    def unit_cap(self) -> float:
        """The largest share of a layer's units that may go; of a group pattern's, all groups at N / M."""
        removed, of = self.removed_of
        return min(self.cap, removed / of) * of / removed

    def block(self, weight: Array) -> tuple[int, int]:
        """Rows and columns of one unit (block or group) of this weight."""
        if self.groups:
            return 1, self.removed_of[1]
        rows, cols = self.pattern.split("x")
        return (
            weight.shape[0] if rows == "channel" else int(rows),
            weight.shape[1] if cols == "channel" else int(cols),
        )


def reduced(values: Sequence[float], how: str) -> float:
    """Mean, sum or maximum of some scores."""
    if how == "max":
        return max(values)
    return sum(values) / (len(values) if how == "mean" else 1)


def decimal(number: float) -> Fraction:
    """The number as it is typed: 0.9 is nine tenths."""
    return Fraction(str(number))


def requested(method: Method, update: int, last: int) -> float | Fraction:
    """The sparsity that update number `update` of 0..`last` asks for, starting from a dense model.

    A float, whose products round as theirs do; at the last update the exact target.
    """
    if update == last:
        return decimal(method.target)
    share, target = update / last, method.target
    if method.decay == "exp":
        ratio = 1 - (1 - target) ** share
    elif method.decay == "linear":
        ratio = target * share
    elif method.decay == "cos":
        ratio = target * (1 - math.cos(share * math.pi / 2))
    elif method.decay == "cube":
        ratio = target * share**3
    else:
        raise ValueError(method.decay)
    return min(ratio, target)


class Reference:
    """A pruner of weight matrices, and what it found on its way.

    Attributes:
        weights: layer -> the matrix, changed by `begin_step` and `after_step`.
        masks: layer -> what is kept, of the matrix's shape.
        closest: the smallest relative distance between the last score pruned and the first one kept, over
            all decisions. Below float32's precision nobody can say which one is due.
        capped: the layers that a cap has clipped.
        at_cap: whether, before the last update, a layer stood exactly at its cap and was not clipped.
        gave_back: whether a layer was refused units for the sake of others: the peer's floor, or an early
            layer under a criterion that revives weights.
    """

    def __init__(self, method: Method, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.method = method
        self.weights: dict[str, Array] = {name: weight.astype(np.float64) for name, weight in weights.items()}
        self.masks: dict[str, Mask] = {name: np.ones(weight.shape, bool) for name, weight in weights.items()}
        self.scores: dict[str, Array] = {}
        self.units: dict[str, Mask] = {}  # per block or group: False = pruned
        for name, weight in self.weights.items():
            rows, cols = method.block(weight)
            assert weight.shape[0] % rows == 0
            assert weight.shape[1] % cols == 0
            self.units[name] = np.ones((weight.shape[0] // rows, weight.shape[1] // cols), bool)
            self.scores[name] = np.zeros(weight.shape if method.groups else self.units[name].shape)
        self.frozen: set[str] = set()
        self.updates = 0
        self.closest = math.inf
        self.capped: set[str] = set()
        self.at_cap = False
        self.gave_back = False

    # One optimizer step.

    def begin_step(self, step: int) -> None:
        """Before the forward pass: new masks, if an update is due."""
        method = self.method
        last = (method.end - method.start) // method.frequency
        if step not in [method.start + k * method.frequency for k in range(last + 1)]:
            return
        if self.sparsity() > decimal(method.target):
            return
        if method.criterion == "magnitude":
            for name, weight in self.weights.items():
                self.scores[name] = self.stored(np.abs(weight))
        ratio = requested(method, self.updates, last)
        self.updates += 1
        if method.scope == "global":
            self.update(list(self.weights), ratio)
        else:
            for name in self.weights:
                self.update([name], ratio)
        if self.updates <= last:
            full = [n for n, units in self.units.items() if self.zeros(n) >= int(units.size * method.unit_cap)]
            self.at_cap |= not self.frozen.issuperset(full)
        self.after_step()

    def before_step(self, gradients: Mapping[str, NDArray[np.float32]]) -> None:
        """After the backward pass, before the optimizer: scores from this step's gradients."""
        method = self.method
        for name, weight in self.weights.items():
            gradient = gradients[name].astype(np.float64)
            if method.criterion == "gradient":
                self.scores[name] = self.stored(np.abs(gradient))
            elif method.criterion == "snip":
                self.scores[name] = self.stored(np.abs(weight * gradient))
            elif method.criterion == "snip_momentum":
                self.scores[name] = 0.9 * self.scores[name] + self.stored(np.abs(weight * gradient))
                if not method.groups:
                    self.frozen.discard(name)

    def after_step(self) -> None:
        """After the optimizer, and after an update: what is pruned is zero."""
        for name in self.weights:
            self.weights[name] = self.weights[name] * self.masks[name]

    def train_step(self, step: int, gradients: Mapping[str, NDArray[np.float32]], lr: float) -> None:
        """The rest of a step after `begin_step`, with plain SGD."""
        self.before_step(gradients)
        for name in self.weights:
            self.weights[name] = self.weights[name] - lr * gradients[name].astype(np.float64)
        self.after_step()

    # Scores of units.

    def stored(self, score: Array) -> Array:
        """A criterion's score as it is kept: per weight for N:M, else per block, columns reduced first."""
        if self.method.groups:
            return score
        rows, cols = self.method.block(score)
        kept = np.zeros((score.shape[0] // rows, score.shape[1] // cols))
        for i in range(kept.shape[0]):
            for j in range(kept.shape[1]):
                block = score[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols].tolist()
                kept[i, j] = reduced([reduced(row, self.method.reduce) for row in block], self.method.reduce)
        return kept

    def candidates(self, group: Sequence[float]) -> list[int]:
        """Where the N smallest scores of one N:M group are."""
        removed, _ = self.method.removed_of
        threshold = self.threshold(group, removed)
        return [i for i, score in enumerate(group) if score <= threshold]

    def unit_scores(self, name: str) -> Array:
        """What each block or group of a layer is worth: a group, what its candidates are."""
        if not self.method.groups:
            return self.scores[name]
        _, of = self.method.removed_of
        worth = np.zeros(self.units[name].shape)
        for i in range(worth.shape[0]):
            for j in range(worth.shape[1]):
                group = self.scores[name][i, j * of : (j + 1) * of].tolist()
                chosen = self.candidates(group)
                worth[i, j] = reduced([group[c] if c in chosen else 0.0 for c in range(of)], self.method.reduce)
        return worth

    def threshold(self, scores: Sequence[float], count: int) -> float:
        """The count-th smallest score; keeps how far the next one is."""
        order = sorted(scores)
        if count < len(order):
            here, following = order[count - 1], order[count]
            self.closest = min(self.closest, (following - here) / following if following else 0.0)
        return order[count - 1]

    def expanded(self, name: str) -> Mask:
        """A layer's pruned units as a mask per weight."""
        mask = np.ones(self.weights[name].shape, bool)
        rows, cols = self.method.block(self.weights[name])
        for i, j in zip(*np.nonzero(~self.units[name]), strict=True):
            if self.method.groups:
                for c in self.candidates(self.scores[name][i, j * cols : (j + 1) * cols].tolist()):
                    mask[i, j * cols + c] = False
            else:
                mask[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols] = False
        return mask

    # Which units go.

    def update(self, pool: Sequence[str], ratio: float | Fraction) -> None:
        """Prune the least units of the layers in `pool` to `ratio` of all of theirs."""
        removed, of = self.method.removed_of
        budget = int(sum(self.units[name].size for name in pool) * (ratio * of / removed))
        while True:
            free = [name for name in pool if name not in self.frozen]
            count = budget - sum(self.zeros(name) for name in pool if name in self.frozen)
            if count <= 0 or not free:
                return
            scores = {name: self.unit_scores(name) for name in free}
            threshold = self.threshold([s for name in free for s in scores[name].flat], count)
            for name in free:
                proposed = int((scores[name] <= threshold).sum())
                allowed = self.allowed(name, proposed, pool)
                if allowed < proposed:
                    self.frozen.add(name)
                    own = self.threshold(list(scores[name].flat), allowed) if allowed else -1.0
                    self.units[name] = scores[name] > own
                else:
                    self.units[name] = scores[name] > threshold
                self.masks[name] = self.expanded(name)
            if not any(name in self.frozen for name in free):
                return

    def allowed(self, name: str, proposed: int, pool: Sequence[str]) -> int:
        """How many of the proposed units a layer may lose: its cap, and what the floors of others need."""
        removed, of = self.method.removed_of
        floor, target = self.method.floor * of / removed, decimal(self.method.target) * of / removed
        size = self.units[name].size
        if proposed / size > self.method.unit_cap:
            proposed = int(size * self.method.unit_cap)
            self.capped.add(name)
        if proposed / size < floor:
            return proposed
        zeros = {other: proposed if other == name else self.zeros(other) for other in pool}
        sizes = {other: self.units[other].size for other in pool}
        if not any(Fraction(zeros[other], sizes[other]) > target for other in pool):
            return proposed
        below = [other for other in pool if zeros[other] / sizes[other] < floor]
        gap = int(sum(sizes[other] for other in below) * floor) - sum(zeros[other] for other in below)
        remaining = math.floor(sum(sizes.values()) * target) - sum(zeros.values())
        if remaining < gap:
            self.gave_back = True
            return max(proposed - (gap - remaining), 0)
        return proposed

    def zeros(self, name: str) -> int:
        """Units of a layer that are pruned."""
        return int((~self.units[name]).sum())

    def sparsity(self) -> Fraction:
        """Pruned share of all weights that the units cover, as the last masks have it."""
        removed, of = self.method.removed_of
        total = sum(units.size for units in self.units.values())
        return Fraction(sum(map(self.zeros, self.units)), total) * removed / of
