"""When is an update due, and how sparse? Sparsity schedules over a training's optimizer steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.durations import Duration, in_steps
from hydraprune.sparsity.errors import SparsityError

AUTO_UPDATES = 40


@dataclass(frozen=True)
class Schedule:
    """Updates from the end of `warmup` to the start of `cooldown`, every `frequency` steps.

    Durations are whole steps or epochs (`1ep`). `frequency` may also be the word `auto`: the
    window in 40 strides, which is what the published script's -1 means. Subclasses say how the
    sparsity grows between the first update and the last.
    """

    warmup: Duration = 0
    cooldown: Duration = 0
    frequency: Duration = "auto"

    @property
    def by_scores(self) -> bool:
        """Whether scores decide how much goes at an update before the last; otherwise the curve does."""
        return False

    def passes(self, costs: Tensor) -> Tensor:
        """Which units may go by their scores alone, where `by_scores`: bool, flat [units]."""
        return torch.ones_like(costs, dtype=torch.bool)

    def curve(self, x: float, initial: float, target: float) -> float:
        """Sparsity after the share `x` in [0, 1] of the window, from `initial` to `target`."""
        return initial + (target - initial) * self.progress(x)

    def progress(self, x: float) -> float:
        """The share of the way from initial to target sparsity; 0 at 0, 1 at 1, monotone."""
        return x

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
                f"warmup={self.warmup}, cooldown={self.cooldown}: the training has no steps, so there is one update, "
                f"before all of them; use scheduler=at_start, or train"
            )
        if start > end:
            raise SparsityError(
                f"warmup={self.warmup}, cooldown={self.cooldown}: {start} + {cooldown} steps are longer than the "
                f"training's {steps}; train longer, or shorten them"
            )
        if self.frequency == "auto":
            stride = max(1, (end - start + 1) // AUTO_UPDATES)
        else:
            stride = in_steps(self.frequency, steps_per_epoch, "frequency")
        if stride < 1:
            raise SparsityError(f"frequency={self.frequency}: must be at least 1 step between updates")
        return Updates(self, start, stride, (end - start) // stride)


@dataclass(frozen=True)
class Updates:
    """A schedule laid over one training: `count` + 1 updates at start + i * frequency.

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
        return min(target, self.schedule.curve(index / self.count, initial, target))


@dataclass(frozen=True)
class Exp(Schedule):
    """A constant rate of what is left: 1 - (1-s0) * ((1-T)/(1-s0))^x. Front-loaded; the published default."""

    def curve(self, x: float, initial: float, target: float) -> float:
        left: float = ((1 - target) / (1 - initial)) ** x
        return 1 - (1 - initial) * left


@dataclass(frozen=True)
class Linear(Schedule):
    """Equal growth at every update."""


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
    """A single update to the target at the end of the warm-up; `frequency` has no meaning here."""

    def over(self, steps: int, steps_per_epoch: int | None = None) -> Updates:
        whole = super().over(steps, steps_per_epoch)
        return Updates(self, whole.start, 1, 0)


@dataclass(frozen=True)
class Hold(Schedule):
    """The target at the first update, and held: what later updates change is which units it is made of."""

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

    tau: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.tau < 0.5:
            raise SparsityError(f"tau={self.tau}: must be above 0 and below 0.5, where every score begins")

    @property
    def by_scores(self) -> bool:
        return True

    def passes(self, costs: Tensor) -> Tensor:
        return costs.sigmoid() <= self.tau


@dataclass(frozen=True)
class Never:
    """The schedule of a run that prunes nothing. A plan that has it is refused."""

    def over(self, steps: int, steps_per_epoch: int | None = None) -> Updates:
        raise SparsityError("scheduler=none prunes nothing; choose another, or pattern=dense")
