"""Every public constructor of the core takes a value or refuses it with a SparsityError that names the argument."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples

import hydraprune.sparsity as core
from hydraprune.sparsity import Block, Exp, Magnitude, Selection, SparsityError, block, custom

# Made by the core itself, not by its users.
RESULTS = {
    "Budget", "Coverage", "DenseWeight", "LayerSparsity", "MaskDecision", "Member", "PrunedWeight", "PruningTask",
    "PrunerFactory", "Structure", "Units", "Updates", "Weight", "Plans",
}  # fmt: skip
FACTORIES = {"block", "custom", "dense", "ffn_channels", "heads", "lock", "mixed", "n_of_m", "slim"}
# Durations are read when a schedule is applied to a training.
LATER = {"warmup", "cooldown", "frequency", "name"}
NEEDED: dict[str, Any] = {
    "rows": 4,
    "cols": 1,
    "keep": 2,
    "of": 4,
    "name": "mine",
    "target_sparsity": 0.5,
    "pattern": Block(4, 1),
    "selection": Selection(0.5),
    "parts": {"one": block(4, 1, 0.5)},
}


def constructors() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name in core.__all__:
        value = getattr(core, name)
        settings = inspect.isclass(value) and dataclasses.is_dataclass(value) and not inspect.isabstract(value)
        if name in FACTORIES or (settings and name not in RESULTS):
            found[name] = value
    return found


def arguments() -> list[tuple[str, str]]:
    return [
        (name, parameter.name)
        for name, make in constructors().items()
        for parameter in inspect.signature(make).parameters.values()
    ]


ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=2),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.builds(object),
    st.just(Block),
    st.just(Block(4, 1)),
    st.just(Magnitude()),
    st.just(Exp()),
)


def made(name: str, argument: str, value: Any) -> Any:
    make = constructors()[name]
    parameters = inspect.signature(make).parameters.values()
    needed = {p.name: NEEDED[p.name] for p in parameters if p.default is inspect.Parameter.empty}
    return make(**{**needed, argument: value})


def refusal_of(call: Callable[[], Any]) -> SparsityError | None:
    """The error that a call raises, None where it raises none; any other error fails the test."""
    try:
        call()
    except SparsityError as error:
        return error
    return None


def test_all_public_constructors_are_drawn_from() -> None:
    names = {name for name, _ in arguments()}
    assert names >= {"GroupLasso", "SrSte", "Threshold", "Family", "Layers", "Plan", "Fisher", "SparseGpt", "custom"}
    assert len(names) > 30
    assert set(core.__all__) >= RESULTS


@pytest.mark.parametrize(("name", "argument"), arguments())
@examples(60)
@given(value=ODD)
def test_an_odd_value_is_taken_or_refused_by_its_name(name: str, argument: str, value: Any) -> None:
    refusal = refusal_of(lambda: made(name, argument, value))
    # The key is the argument, or the one that bounds it; a factory's `pruner` is a plan's criterion, and so on.
    assert refusal is None or refusal.key


@pytest.mark.parametrize(("name", "argument"), arguments())
def test_an_object_of_no_kind_is_refused(name: str, argument: str) -> None:
    if argument in LATER or (name in ("mixed", "slim") and argument != "parts"):
        return  # a mixed pattern's other arguments are there for a config's parts to refer to
    with pytest.raises(SparsityError):
        made(name, argument, object())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: core.GroupLasso("a"), "strength=a: must be a number above 0"),  # type: ignore[arg-type]
        (lambda: core.SrSte(decay="x"), "decay=x: must be a number at least 0"),  # type: ignore[arg-type]
        (lambda: core.Threshold(tau="a"), "tau=a: must be a number above 0 and below 0.5"),  # type: ignore[arg-type]
        (lambda: core.Layers(include=3), "include=3: must be text or a list of texts"),  # type: ignore[arg-type]
        (lambda: core.Family("mine", roles=["q"]), "must map roles to regular expressions"),  # type: ignore[arg-type]
        (lambda: core.Family("mine", {"query": "("}), "roles.query=(: not a regular expression"),
        (lambda: core.Family("mine", heads=0), "heads=0: must be a whole number of at least 1"),
        (lambda: custom("4x1", 0.5), "must be a Pattern, Heads or FfnChannels, not str"),  # type: ignore[arg-type]
        (lambda: block(4, 1, 0.5, pruner="snip"), "must be a Method, not str"),  # type: ignore[arg-type]
        (lambda: block(4, 1, 0.5, scheduler=Exp), "must be a Schedule or Never, not type"),  # type: ignore[arg-type]
        (lambda: core.parse(3), "must be the name of a pattern"),  # type: ignore[arg-type]
    ],
)
def test_messages(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(SparsityError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize("kind", ["Exp", "Linear", "OneShot", "Hold", "Threshold"])
@pytest.mark.parametrize("key", ["warmup", "cooldown", "frequency"])
@examples(60)
@given(value=ODD)
def test_durations_are_refused_when_they_are_applied(kind: str, key: str, value: Any) -> None:
    schedule = made(kind, key, value)
    refusal = refusal_of(lambda: schedule.over(100, 10))
    assert refusal is None or refusal.key in ("warmup", "cooldown", "frequency")
