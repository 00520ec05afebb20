"""The error for a mistake of the user, with key, value, reason and cure as fields."""

from __future__ import annotations

from typing import Final, Protocol

# Exit code after a mistake in what was typed.
MISTAKE = 2
# Exit code of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


class _NotGiven:
    """The value of a mistake that is not about a value."""


NOT_GIVEN: Final = _NotGiven()


class Mistake(Protocol):
    """The fields of a mistake; `SparsityError` of the core has the same."""

    reason: str
    key: str | None
    value: object
    cure: str | None

    @property
    def has_value(self) -> bool:
        """Whether the message shows a value."""


class UserError(Exception):
    """A mistake in the config, the data or a checkpoint. Shown in one line, without a traceback.

    Args:
        reason: what is wrong.
        key: the config key, command-line option or file it is about, as the user would type it.
        value: the key's value, where the message should show it.
        cure: what to do about it.
    """

    def __init__(
        self, reason: str, *, key: str | None = None, value: object = NOT_GIVEN, cure: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key
        self.value = value
        self.cure = cure

    @classmethod
    def of(cls, mistake: Mistake, under: str = "") -> UserError:
        """The same mistake with `under` and a dot before its key; `under` alone where it has no key."""
        key = ".".join(part for part in (under, mistake.key) if part) or None
        value = mistake.value if mistake.has_value else NOT_GIVEN
        return cls(mistake.reason, key=key, value=value, cure=mistake.cure)

    @property
    def has_value(self) -> bool:
        """Whether the message shows a value."""
        return self.value is not NOT_GIVEN

    def under(self, prefix: str) -> UserError:
        """The same mistake with `prefix` and a dot before its key."""
        return UserError.of(self, prefix)

    def __str__(self) -> str:
        subject = "" if self.key is None else f"{self.key}={typed(self.value)}" if self.has_value else self.key
        return f"{f'{subject}: ' if subject else ''}{self.reason}{f'; {self.cure}' if self.cure else ''}"


def typed(value: object) -> str:
    """A value as it is typed on the command line: null, true and false in place of Python's words."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def single_line(text: object) -> str:
    """A text, or an error's message, with all white space folded to single spaces."""
    return " ".join(str(text).split())


def one_line(error: BaseException) -> str:
    """An error in one line: a user's mistake as it is, any other with the name of its class before it."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return kind + single_line(error)
