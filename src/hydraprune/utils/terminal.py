"""The terminal: whether output can be redrawn in place, and output that cannot be written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any


def is_interactive(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor; not a file, a pipe or a dumb terminal."""
    unknown = "" if os.name == "nt" else "dumb"  # Windows sets no TERM
    return stream.isatty() and os.environ.get("TERM", unknown) != "dumb"


class _LastingStream:
    """A text stream that outlives its terminal: what can no longer be written is dropped, and a run goes on.

    Everything but writing is passed to the stream itself.

    Args:
        stream: None where the process was started without one.
        number: of its file descriptor.
    """

    outlives_terminal = True

    def __init__(self, stream: IO[str] | None, number: int) -> None:
        # Kept open: a stream in its place until the process ends.
        self._stream: IO[str] = stream if stream is not None else open(os.devnull, "w")  # noqa: SIM115
        self._number = number
        self.problem: OSError | None = OSError(errno.EBADF, "is closed") if stream is None else None

    def write(self, text: str) -> int:
        if self.problem is None:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.problem is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        self.problem = error if isinstance(error, OSError) else OSError(errno.EBADF, "is closed")
        # What is still buffered has somewhere to go when the process ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_terminal() -> Iterator[None]:
    """A context in which a closed or full standard output, or standard error, raises no error."""
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if getattr(stream, "outlives_terminal", False) else _LastingStream(stream, number)
        for number, stream in enumerate(kept, 1)
    )
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = kept


def output_problem() -> str | None:
    """Why what was printed did not arrive; None if it did, or if its reader, such as `head`, has seen enough."""
    sys.stdout.flush()
    problem: OSError | None = getattr(sys.stdout, "problem", None)
    if problem is None or problem.errno in (errno.EPIPE, errno.EBADF):
        return None
    return problem.strerror or str(problem)
