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
        ("a=range(0.5,0.95,0.05)", FloatDistribution(0.5, 0.9, step=0.05)),
        ("a=range(0,1,0.3)", FloatDistribution(0, 0.9, step=0.3)),
        ("a=range(1e-5,1e-4,1e-5)", FloatDistribution(1e-5, 9e-5, step=1e-5)),
        ("a=range(1,1000000000)", IntDistribution(1, 999_999_999)),
        ("a=shuffle(range(1,5))", IntDistribution(1, 4)),
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
        (["a=tag(log,range(1,9))"], "has no logarithmic scale"),
        (["++seed=0,1"], "the best seed is the luckiest"),
        (["sweep=a,b"], "sweep: is one for all trials"),
    ],
)
def test_what_cannot_be_searched_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parsed(*words)


def test_the_last_word_about_a_key_counts() -> None:
    found = parsed("a=1,2", "b=x,y", "a=3", "+b=z,w")
    assert found.shared == ("a=3",)
    assert found.searched == {"+b": CategoricalDistribution(["z", "w"])}


@given(st.floats(1, 1e6), st.floats(1e-6, 1))
def test_rounding_stays_within_the_bounds(low: float, width: float) -> None:
    high = low + width
    if high <= low:
        return
    space = Space((), {"a": FloatDistribution(low, high)})
    for value in (low, high, (low + high) / 2):
        (word,) = space.words({"a": value})
        assert low <= float(word.partition("=")[2]) <= high
