"""Numbers and words are checked in one way, and every mistake carries key, value and reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hydraprune.sparsity import (
    BlockMask,
    Fisher,
    GroupLasso,
    Platon,
    Progressive,
    RetrainFree,
    Rigl,
    Selection,
    SnipMomentum,
    SoftMovement,
    SparseGpt,
    SparsityError,
    SrSte,
    Threshold,
    Wanda,
)
from hydraprune.sparsity.validation import check_choice, check_number, check_whole

NUMBERS: list[tuple[Callable[..., Any], str]] = [
    (BlockMask, "decay"),
    (Fisher, "decay"),
    (Fisher, "damp"),
    (Fisher, "size"),
    (GroupLasso, "strength"),
    (Platon, "beta1"),
    (Platon, "beta2"),
    (Progressive, "parts"),
    (RetrainFree, "batches"),
    (Rigl, "fraction"),
    (Selection, "target_sparsity"),
    (SnipMomentum, "decay"),
    (SoftMovement, "rate"),
    (SoftMovement, "penalty"),
    (SparseGpt, "damping"),
    (SparseGpt, "columns"),
    (SrSte, "decay"),
    (Threshold, "tau"),
    (Wanda, "batches"),
]


@pytest.mark.parametrize("value", ["a", None, True, [1], float("nan"), float("inf"), -1])
@pytest.mark.parametrize(("make", "key"), NUMBERS, ids=[f"{m.__name__}.{k}" for m, k in NUMBERS])
def test_values_out_of_range_or_of_another_type_are_refused(make: Callable[..., Any], key: str, value: object) -> None:
    with pytest.raises(SparsityError) as error:
        make(**{key: value})
    assert error.value.key == key
    assert error.value.value is value
    assert str(error.value).startswith(f"{key}={value}: must be ")


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [
        ({}, (0.5,), (0, 1), "above 0 and below 1"),
        ({"from_low": True}, (0, 0.5), (1, -0.1), "at least 0 and below 1"),
        ({"to_high": True}, (0.5, 1), (0, 1.1), "above 0 and at most 1"),
    ],
)
def test_bounds_of_numbers(
    bounds: dict[str, bool], inside: tuple[float, ...], outside: tuple[float, ...], words: str
) -> None:
    for value in inside:
        check_number("x", value, 0, 1, **bounds)
    for value in outside:
        with pytest.raises(SparsityError, match=f"^x={value}: must be a number {words}$"):
            check_number("x", value, 0, 1, **bounds)


def test_bounds_of_whole_numbers() -> None:
    check_whole("n", 1, 1)
    check_whole("n", 3, 1, 3)
    for value, least, most, words in [(0, 1, None, "of at least 1"), (4, 1, 3, "from 1 to 3"), (1.0, 1, 3, "from 1")]:
        with pytest.raises(SparsityError, match=f"^n={value}: must be a whole number {words}"):
            check_whole("n", value, least, most)


def test_words_of_a_list() -> None:
    check_choice("how", "b", ("a", "b", "c"))
    with pytest.raises(SparsityError, match=r"^how=d: must be a, b or c$"):
        check_choice("how", "d", ("a", "b", "c"))


def test_fields_of_an_error_and_what_is_added_to_them() -> None:
    error = SparsityError("does not fit", cure="exclude the layer", setting=("layers.exclude", "['x']"))
    assert (error.key, error.cure) == (None, "exclude the layer: layers.exclude=['x']")
    assert str(error) == "does not fit; exclude the layer: layers.exclude=['x']"
    assert error.cure_under("pattern") == "exclude the layer: pattern.layers.exclude=['x']"
    assert error.of("4x1").pruner == "4x1"
    assert str(error.under("pattern")) == f"pattern: {error}"
    number = SparsityError("must be below 1", key="decay", value=1).under("pruner").of("p")
    assert (number.key, number.value, number.pruner) == ("pruner.decay", 1, "p")
    assert str(number) == "pruner.decay=1: must be below 1"
