"""The search space: words of a command with several values, as distributions of Optuna, and the words of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from hydraprune.config.schema import override_key
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
        return (*self.shared, *(f"{key}={_typed(values[key], each)}" for key, each in self.searched.items()))

    @property
    def first(self) -> tuple[str, ...]:
        """The overrides of a trial with the first or lowest value of everything."""
        found: Mapping[str, Any] = self.searched
        values = {key: each.choices[0] if hasattr(each, "choices") else each.low for key, each in found.items()}
        return self.words(values)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Key -> its distribution as text, by which two spaces are compared."""
        from optuna.distributions import distribution_to_json

        return {key: distribution_to_json(each) for key, each in sorted(self.searched.items())}

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
    # As Hydra has it, the last word about a key counts.
    last = {override_key(str(each.input_line)): each for each in overrides}
    kept = [each for each in overrides if last[override_key(str(each.input_line))] is each]
    swept = [each for each in kept if each.is_sweep_override()]
    if not swept:
        raise UserError(
            "searches nothing", key="study", cure="give values, as in 'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
        )
    keys = {override_key(str(each.input_line)) for each in swept}
    if "seed" in keys:
        raise UserError(
            "is not searched: the best seed is the luckiest",
            key="seed",
            cure="give one; then compare the best settings in a sweep with seed=0,1,2",
        )
    if "sweep" in keys:
        raise UserError("is one for all trials", key="sweep", cure="give one name")
    searched = {str(each.get_key_element()): _distribution(each) for each in swept}
    return Space(tuple(str(each.input_line) for each in kept if not each.is_sweep_override()), searched)


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
        if isinstance(value, RangeSweep):
            return _range(value, word)
        values = list(override.sweep_string_iterator())
        if not values:
            raise UserError("has no value", key=word, cure="give at least one")
        return CategoricalDistribution(values)
    except ValueError as error:
        raise UserError(f"cannot be searched ({error})", key=word) from None


def _range(found: RangeSweep, word: str) -> BaseDistribution:
    """The numbers of `range(start, stop, step)`, in decimals: 0.1 + 0.2 is 0.3."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "log" in found.tags:
        raise UserError("has no logarithmic scale", key=word, cure="as in tag(log,int(interval(1,9)))")
    start, stop, step = (Decimal(str(each)) for each in (found.start, found.stop, found.step))
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise UserError("has no value", key=word, cure="give at least one")
    low, high = sorted((start, start + (count - 1) * step))
    if all(isinstance(each, int) for each in (found.start, found.stop, found.step)):
        if count == 1:
            return CategoricalDistribution([str(low)])
        return IntDistribution(int(low), int(high), step=int(abs(step)))
    if count == 1:
        return CategoricalDistribution([str(low)])
    return FloatDistribution(float(low), float(high), step=float(abs(step)))


def _typed(value: Any, distribution: Any = None) -> str:
    """A value as an override has it."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.{_DIGITS}g}"
    inside = distribution is None or distribution.low <= float(short) <= distribution.high
    return short if inside else repr(value)


def _described(distribution: Any) -> str:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    scale = ", log scale" if distribution.log else ""
    step = "" if distribution.step in (None, 1) else f", in steps of {_typed(distribution.step)}"
    return f"{_typed(distribution.low)} to {_typed(distribution.high)}{scale}{step}"
