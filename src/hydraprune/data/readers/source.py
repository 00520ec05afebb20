"""The name of a data source in errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hydraprune.errors import UserError


@dataclass(frozen=True)
class Source:
    """A file, folder or data set as the user named it.

    Args:
        key: config key, as `task.path`.
        path: its value, as typed.
        part: a file inside it, if an error is about that.
    """

    key: str
    path: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.key}={self.path}"

    def within(self, part: str) -> Source:
        """The same source, for errors about one file of it."""
        return replace(self, part=part)

    def error(self, reason: str, cure: str | None = None) -> UserError:
        """A mistake in this source."""
        return UserError(f"{self.part}: {reason}" if self.part else reason, key=self.key, value=self.path, cure=cure)
