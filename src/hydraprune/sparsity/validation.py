"""Checks of arguments: numbers within a range, whole numbers, words of a list."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hydraprune.sparsity.errors import SparsityError


def check_number(
    key: str,
    value: object,
    low: float,
    high: float,
    *,
    from_low: bool = False,
    to_high: bool = False,
    cure: str | None = None,
) -> None:
    """Refuse a value that is not a number between `low` and `high`.

    Both bounds are excluded: `low` is allowed where `from_low`, `high` where `to_high`.

    Args:
        cure: what to do instead.

    Raises:
        SparsityError: with the key, the value and the range.
    """
    if is_number(value):
        assert isinstance(value, (int, float))
        if low < value < high or (from_low and value == low) or (to_high and value == high):
            return
    least = f"at least {low:g}" if from_low else f"above {low:g}"
    most = "" if high == math.inf else f" and at most {high:g}" if to_high else f" and below {high:g}"
    raise SparsityError(f"must be a number {least}{most}", key=key, value=value, cure=cure)


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_whole(key: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse a value that is not a whole number from `least` to `most`.

    Raises:
        SparsityError: with the key, the value and the range.
    """
    if is_whole(value, least, most):
        return
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise SparsityError(f"must be a whole number {bounds}", key=key, value=value)


def is_whole(value: object, least: int, most: int | None = None) -> bool:
    """Whether `value` is an int from `least` to `most`, and not a bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return least <= value and (most is None or value <= most)


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of `choices`.

    Raises:
        SparsityError: with the key, the value and the choices.
    """
    if value not in choices:
        *first, last = choices
        raise SparsityError(f"must be {', '.join(first)} or {last}", key=key, value=value)
