"""Durations: steps as plain numbers, epochs as `1ep`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples

from hydraprune.sparsity import SparsityError, in_steps


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0),
        (3, 3),
        ("3", 3),
        (" 12 ", 12),
        ("0", 0),
        ("1ep", 115),
        ("2ep", 230),
        ("1 ep", 115),
        ("0.5ep", 57),
        ("1.5ep", 172),
        ("0ep", 0),
    ],
)
def test_steps_and_epochs(duration: int | str, expected: int) -> None:
    assert in_steps(duration, 115, "warmup") == expected


@given(st.integers(0, 10_000), st.integers(1, 1000))
@examples(50)
def test_steps_do_not_depend_on_the_epoch(steps: int, steps_per_epoch: int) -> None:
    assert in_steps(steps, None, "warmup") == in_steps(str(steps), steps_per_epoch, "warmup") == steps


@given(st.integers(0, 99), st.integers(1, 10).map(lambda n: n * 100))
@examples(50)
def test_parts_of_an_epoch_are_exact_decimals(hundredths: int, steps_per_epoch: int) -> None:
    # 0.29 * 100 is 28.999... in floats.
    assert in_steps(f"0.{hundredths:02d}ep", steps_per_epoch, "warmup") == hundredths * steps_per_epoch // 100


@pytest.mark.parametrize(
    "duration",
    [
        -1,
        "-1",
        1.5,
        5.0,
        "1.5",
        "ep",
        "1 epoch",
        "1e",
        "ep1",
        "-1ep",
        "auto",
        "",
        None,
        True,
        False,
        "1ep2",
        "²",
        "½ep",
    ],
)
def test_anything_else_is_refused_with_key_and_value(duration: object) -> None:
    with pytest.raises(SparsityError) as error:
        in_steps(duration, 10, "cooldown")  # type: ignore[arg-type]
    assert f"cooldown={duration}" in str(error.value)
    assert "1ep" in str(error.value)


def test_epochs_need_an_epoch() -> None:
    with pytest.raises(SparsityError, match=r"warmup=2ep: .*steps_per_epoch"):
        in_steps("2ep", None, "warmup")
