"""Sparsity schedules: when masks are updated, and how sparse they are then."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hydraprune.sparsity.durations import Duration, in_steps
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.validation import check_number

# Intervals between updates that a frequency of `auto` makes of the window.
AUTO_UPDATES = 40


@dataclass(frozen=True)
class Schedule:
    """Updates from the end of `warmup` to the start of `cooldown`, every `frequency` steps.

    Durations are whole steps or epochs (`1ep`). `frequency` may also be the word `auto`: 40
    intervals between updates, which is what the published script's -1 means. A subclass overrides
    `progress` or `curve`: how the sparsity grows between the first update and the last.
    """

    # Whether a plan with it prunes anything.
    prunes: ClassVar[bool] = True
    # Whether there is a single update, whatever the frequency.
    single: ClassVar[bool] = False
    # Whether scores decide how much goes at an update before the last (see `passes`); otherwise the curve does.
    by_scores: ClassVar[bool] = False

    warmup: Duration = 0
    cooldown: Duration = 0
    frequency: Duration = "auto"

    def passes(self, costs: Tensor) -> Tensor:
        """Which units may go by their scores alone, where `by_scores`: bool, flat [units]."""
        return torch.ones_like(costs, dtype=torch.bool)

    def curve(self, x: float, initial: float, target: float) -> float:
        """Sparsity after the share `x` in [0, 1] of the window, from `initial` to `target`."""
        return initial + (target - initial) * self.progress(x)

    def progress(self, x: float) -> float:
        """The share of the way from initial to target sparsity; 0 at 0, 1 at 1, monotone."""
        return x

    def at_update(self, index: int, count: int, initial: float, target: float) -> float:
        """Sparsity at update `index` of `count`: the curve there.

        Overridden where the published tool computes it in another order, since a product may then truncate to one
        unit more or less.
        """
        return self.curve(index / count, initial, target)

    def over(self, steps: int, steps_per_epoch: int | None = None) -> Updates:
        """The updates of a training of `steps` optimizer steps.

        Raises:
            SparsityError: warm-up and cooldown do not leave room, or the frequency is not positive.
        """
        start = in_steps(self.warmup, steps_per_epoch, "warmup")
        cooldown = in_steps(self.cooldown, steps_per_epoch, "cooldown")
        end = steps - cooldown
        if start > end and not steps:
            raise SparsityError(
                f"must be 0, like cooldown={self.cooldown}, where the training has no steps",
                key="warmup",
                value=self.warmup,
                cure="use scheduler=at_start, or train",
            )
        if start > end:
            raise SparsityError(
                f"with cooldown={self.cooldown} these are {start} + {cooldown} steps, more than the training's {steps}",
                key="warmup",
                value=self.warmup,
                cure="train longer, or shorten them",
            )
        if self.frequency == "auto":
            interval = max(1, (end - start + 1) // AUTO_UPDATES)
        else:
            interval = in_steps(self.frequency, steps_per_epoch, "frequency")
        if interval < 1:
            raise SparsityError("must be at least 1 step between updates", key="frequency", value=self.frequency)
        return Updates(self, start, interval, (end - start) // interval)


@dataclass(frozen=True)
class Updates:
    """A schedule applied to one training: `count` + 1 updates at start + i * frequency.

    The last one (i = count) asks for the target itself, the first for the initial sparsity; when
    they are the same update it asks for the target.
    """

    schedule: Schedule
    start: int
    frequency: int
    count: int

    def due(self, step: int) -> bool:
        """Whether an update happens before the forward pass of `step`."""
        offset = step - self.start
        return offset >= 0 and offset % self.frequency == 0 and offset // self.frequency <= self.count

    def next_due(self, step: int) -> int | None:
        """The first update at or after `step`; None when there is none left."""
        index = max(0, -((self.start - step) // self.frequency))
        return self.start + index * self.frequency if index <= self.count else None

    @property
    def last(self) -> int:
        """The step of the last update."""
        return self.start + self.count * self.frequency

    def sparsity(self, step: int, target: float, initial: float = 0.0) -> float:
        """The sparsity asked for at the update due at `step`; exactly `target` at the last."""
        index = (step - self.start) // self.frequency
        if index >= self.count:
            return target
        return min(target, self.schedule.at_update(index, self.count, initial, target))


@dataclass(frozen=True)
class Exp(Schedule):
    """A constant rate of what is left: 1 - (1-s0) * ((1-T)/(1-s0))^x. Front-loaded; the published default."""

    def curve(self, x: float, initial: float, target: float) -> float:
        if initial >= 1:
            return target
        left: float = ((1 - target) / (1 - initial)) ** x
        return 1 - (1 - initial) * left

    def at_update(self, index: int, count: int, initial: float, target: float) -> float:
        if initial >= 1:
            return target
        each: float = ((1 - target) / (1 - initial)) ** (1 / count)
        return float(1 - (1 - initial) * each**index)


@dataclass(frozen=True)
class Linear(Schedule):
    """Equal growth at every update."""

    def at_update(self, index: int, count: int, initial: float, target: float) -> float:
        return (target - initial) * index / count + initial


@dataclass(frozen=True)
class Cos(Schedule):
    """1 - cos(x * pi / 2): back-loaded."""

    def progress(self, x: float) -> float:
        return 1 - math.cos(x * math.pi / 2)


@dataclass(frozen=True)
class Cube(Schedule):
    """x^3: back-loaded. Neural Compressor's `cube`; not the common cubic one."""

    def progress(self, x: float) -> float:
        return x**3


@dataclass(frozen=True)
class Cubic(Schedule):
    """1 - (1-x)^3: front-loaded. Zhu and Gupta 2017, arXiv:1710.01878."""

    def progress(self, x: float) -> float:
        return 1 - (1 - x) ** 3


@dataclass(frozen=True)
class OneShot(Schedule):
    """A single update to the target at the end of the warm-up; `frequency` has no effect."""

    single = True

    def over(self, steps: int, steps_per_epoch: int | None = None) -> Updates:
        whole = super().over(steps, steps_per_epoch)
        return Updates(self, whole.start, 1, 0)


@dataclass(frozen=True)
class Hold(Schedule):
    """The target at the first update and from then on; later updates change only which units are pruned."""

    def curve(self, x: float, initial: float, target: float) -> float:
        return target


@dataclass(frozen=True)
class Threshold(Schedule):
    """A unit goes when the logistic function of its score falls to `tau`; the last update settles on the target.

    For scores that start at 0 and are learned, as in soft movement pruning: how much goes, and when,
    follows from them, never more than the target. Sanh et al. 2020, arXiv:2005.07683, appendix A.1.

    Raises:
        SparsityError: `tau` is not between 0 and 0.5, where every score begins.
    """

    by_scores = True

    tau: float = 0.1

    def __post_init__(self) -> None:
        # 0.5 is where every score begins.
        check_number("tau", self.tau, 0, 0.5)

    def passes(self, costs: Tensor) -> Tensor:
        return costs.sigmoid() <= self.tau


@dataclass(frozen=True)
class Never:
    """The schedule of a run that prunes nothing. A plan that has it is refused."""

    prunes: ClassVar[bool] = False
    single: ClassVar[bool] = False

    def over(self, steps: int, steps_per_epoch: int | None = None) -> Updates:
        raise SparsityError("prunes nothing", key="scheduler", value="none", cure="choose another, or pattern=dense")
