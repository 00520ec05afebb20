"""How long alternatives take, measured in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

_ROUNDS, _LEAST_ROUNDS = 7, 3
Side = TypeVar("Side")


def least_seconds(
    sides: Mapping[Side, Callable[[], object]],
    prepare: Callable[[Side], None] = lambda side: None,
    within: float = math.inf,
) -> dict[Side, float]:
    """The least seconds of a call of each side, over 7 rounds in which they take turns.

    Whatever slows the machine for a while slows all of them. In each turn a first call, which is not timed, finds the
    caches as another side left them.

    Args:
        prepare: called before each turn of a side, not timed.
        within: seconds after which no further round begins; at least 3 are taken.
    """
    found: dict[Side, list[float]] = {side: [] for side in sides}
    end = time.perf_counter() + within
    for number in range(_ROUNDS):
        if number >= _LEAST_ROUNDS and time.perf_counter() > end:
            break
        for side, call in sides.items():
            prepare(side)
            call()
            start = time.perf_counter()
            call()
            found[side].append(time.perf_counter() - start)
    return {side: min(seconds) for side, seconds in found.items()}
