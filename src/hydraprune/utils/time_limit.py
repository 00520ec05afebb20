"""Calls with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TimeLimitError(Exception):
    """A call did not return within its time limit."""


class BackgroundCall(Generic[T]):
    """A call that has been started in a daemon thread: if it hangs, the program can still exit."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._outcome: list[T | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self._outcome.append(function())
        except BaseException as error:
            self._outcome.append(error)

    def result(self, seconds: float) -> T:
        """What the call returned or raised.

        Raises:
            TimeLimitError: it does neither within `seconds` from now; it keeps running.
        """
        self._thread.join(max(0.0, seconds))
        if not self._outcome:
            raise TimeLimitError(f"no answer within {seconds:g} s")
        (outcome,) = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """`function()`, in a daemon thread.

    Raises:
        TimeLimitError: it does not return within `seconds`; it keeps running.
    """
    return BackgroundCall(function).result(seconds)
