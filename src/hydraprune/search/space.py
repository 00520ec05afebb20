"""The search space: words of a command with several values, as distributions of Optuna, and the words of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from hydraprune.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Significant digits of numbers from an interval: a table and a folder can be read, and nothing depends on the rest.
_DIGITS = 4


@dataclass(frozen=True)
class Space:
    """What the trials of a study have in common, and what is searched.

    Args:
        shared: words of every trial.
        searched: key as typed -> distribution.
    """

    shared: tuple[str, ...]
    searched: Mapping[str, BaseDistribution]

    def words(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The overrides of a trial.

        Args:
            values: of every searched key.
        """
        return (*self.shared, *(f"{key}={_typed(values[key])}" for key in self.searched))

    @property
    def first(self) -> tuple[str, ...]:
        """The overrides of a trial with the first or lowest value of everything."""
        found: Mapping[str, Any] = self.searched
        return self.words(
            {key: each.choices[0] if hasattr(each, "choices") else each.low for key, each in found.items()}
        )

    @property
    def described(self) -> dict[str, str]:
        """Key -> its values, for people."""
        return {key: _described(distribution) for key, distribution in self.searched.items()}


def space(overrides: Sequence[Override]) -> Space:
    """The search space of a command.

    `choice(a,b)`, `a,b` and `glob(*)` are categories, `range(1,9,2)` and `int(interval(1,9))` whole numbers,
    `interval(0.1,1)` numbers, `tag(log,interval(1e-5,1e-3))` numbers on a logarithmic scale.

    Raises:
        UserError: nothing is searched, or values that no search can take.
    """
    searched = {str(each.get_key_element()): _distribution(each) for each in overrides if each.is_sweep_override()}
    if not searched:
        raise UserError(
            "searches nothing", key="study", cure="give values, as in 'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
        )
    if "seed" in searched:
        raise UserError(
            "is not searched: the best seed is the luckiest",
            key="seed",
            cure="give one; then compare the best settings in a sweep with seed=0,1,2",
        )
    return Space(tuple(str(each.input_line) for each in overrides if not each.is_sweep_override()), searched)


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    word = str(override.input_line)
    try:
        if isinstance(value, IntervalSweep):
            low, high, log = value.start, value.end, "log" in value.tags
            if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not log)):
                raise UserError("must go from a lower to a higher number, on a log scale from above 0", key=word)
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(float(low), float(high), log=log)
        values = list(override.sweep_string_iterator())
        if not values:
            raise UserError("has no value", key=word, cure="give at least one")
        if isinstance(value, RangeSweep) and not value.shuffle:
            return _range([_number(each) for each in values])
        return CategoricalDistribution(values)
    except ValueError as error:
        raise UserError(f"cannot be searched ({error})", key=word) from None


def _range(values: Sequence[float]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low, high = min(values), max(values)
    if low == high:
        return CategoricalDistribution([_typed(low)])
    step = abs(values[1] - values[0])
    if all(isinstance(value, int) for value in values):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(low, high, step=step)


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _typed(value: Any) -> str:
    """A value as an override has it."""
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def _described(distribution: Any) -> str:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    scale = ", log scale" if distribution.log else ""
    step = "" if distribution.step in (None, 1) else f", in steps of {_typed(distribution.step)}"
    return f"{_typed(distribution.low)} to {_typed(distribution.high)}{scale}{step}"
