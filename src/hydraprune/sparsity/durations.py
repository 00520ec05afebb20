"""Durations in optimizer steps (`3`) or epochs (`1ep`)."""

from __future__ import annotations

import re
from fractions import Fraction

from hydraprune.sparsity.errors import SparsityError

Duration = int | str

_EPOCHS = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*ep")


def in_steps(duration: Duration, steps_per_epoch: int | None, key: str) -> int:
    """Optimizer steps of a duration: a whole number of steps, or epochs as `1ep`, `0.5ep`.

    Args:
        steps_per_epoch: optimizer steps of one epoch; None if the caller has no epochs.
        key: the setting's name, for the error.

    Raises:
        SparsityError: the value is negative or neither form.
    """
    if isinstance(duration, int) and not isinstance(duration, bool) and duration >= 0:
        return duration
    text = str(duration).strip()
    if re.fullmatch(r"[0-9]+", text):
        return int(text)
    match = _EPOCHS.fullmatch(text)
    if match is None:
        raise SparsityError("must be a whole number of steps, or epochs such as 1ep", key=key, value=duration)
    if steps_per_epoch is None:
        raise SparsityError("epochs need steps_per_epoch", key=key, value=duration)
    return int(Fraction(match.group(1)) * steps_per_epoch)
