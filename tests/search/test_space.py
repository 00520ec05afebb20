"""The search space: words of a command as distributions, and values as words that Hydra reads back."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydraprune.errors import UserError
from hydraprune.search.space import Space, space


def parsed(*words: str) -> Space:
    return space(OverridesParser.create().parse_overrides(list(words)))


@pytest.mark.parametrize(
    ("word", "distribution"),
    [
        ("a=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=interval(0.5,10)", FloatDistribution(0.5, 10)),
        ("a=int(interval(1,10))", IntDistribution(1, 10)),
        ("a=tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("a=range(1,10,2)", IntDistribution(1, 9, step=2)),
        ("a=range(10,1,-3)", IntDistribution(4, 10, step=3)),
        ("a=range(1,2)", CategoricalDistribution(["1"])),
        ("a=choice(0.1ep,0.2ep)", CategoricalDistribution(["0.1ep", "0.2ep"])),
        ("+a.b=x,y", CategoricalDistribution(["x", "y"])),
        ("a=choice([1,2],'b c')", CategoricalDistribution(["[1,2]", "b\\ c"])),
    ],
)
def test_words_are_distributions(word: str, distribution: Any) -> None:
    found = parsed("task=toy", word)
    assert list(found.searched.values()) == [distribution]
    assert found.shared == ("task=toy",)


def test_a_trial_is_typed_as_its_keys_are() -> None:
    found = parsed("task=toy", "+a.b=x,y", "optimizer.lr=tag(log,interval(1e-5,1e-3))", "n=range(1,5)")
    values = {"+a.b": "y", "optimizer.lr": 0.00015255793352003723, "n": 3}
    assert found.words(values) == ("task=toy", "+a.b=y", "optimizer.lr=0.0001526", "n=3")
    assert found.described == {"+a.b": "x, y", "optimizer.lr": "1e-05 to 0.001, log scale", "n": "1 to 4"}


@given(st.floats(1e-30, 1e30))
def test_numbers_read_back_with_four_digits(number: float) -> None:
    (word,) = parsed("a=interval(0.5,1)").words({"a": number})
    read = OverridesParser.create().parse_override(word).value()
    assert float(read) == pytest.approx(number, rel=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=toy"], "study: searches nothing"),
        (["seed=0,1"], "the best seed is the luckiest"),
        (["a=interval(2,1)"], "from a lower to a higher number"),
        (["a=tag(log,interval(0,1))"], "on a log scale from above 0"),
        (["a=interval(0,inf)"], "from a lower to a higher number"),
        (["a=range(3,1)"], "has no value"),
    ],
)
def test_what_cannot_be_searched_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parsed(*words)
