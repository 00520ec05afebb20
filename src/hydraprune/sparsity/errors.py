"""The core's error for a mistake of its caller: argument, value, reason and cure, as fields."""

from __future__ import annotations

from typing import Final


class _NotGiven:
    """The value of a mistake that is not about a value."""


NOT_GIVEN: Final = _NotGiven()

# A key of the plan, with its group, and the value to give it.
Setting = tuple[str, object]


class SparsityError(ValueError):
    """A pattern, criterion, schedule or selection that cannot work as asked.

    Args:
        reason: what is wrong.
        key: the argument it is about; with a group before it where it is not the plan's own:
            `layers.exclude`, `scheduler.warmup`, `pruner.decay`.
        value: the argument's value, where the message should show it.
        cure: what to do about it.
        setting: the setting of the plan that cures it, key and value; rendered after the cure.
        pruner: name of the pruner that was being made, if it was one of several.
    """

    def __init__(
        self,
        reason: str,
        *,
        key: str | None = None,
        value: object = NOT_GIVEN,
        cure: str | None = None,
        setting: Setting | None = None,
        pruner: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key
        self.value = value
        self.advice = cure
        self.setting = setting
        self.pruner = pruner
        self.cure = self.cure_under()

    @property
    def has_value(self) -> bool:
        """Whether the message shows a value."""
        return self.value is not NOT_GIVEN

    def cure_under(self, prefix: str = "") -> str | None:
        """What to do about it, with the setting that does it; with `prefix` and a dot before the setting's key."""
        if self.setting is None:
            return self.advice
        key, value = self.setting
        return f"{f'{self.advice}: ' if self.advice else ''}{f'{prefix}.' if prefix else ''}{key}={value}"

    def under(self, prefix: str) -> SparsityError:
        """The same mistake with `prefix` and a dot before its key; `prefix` alone where it has no key."""
        return self._copy(key=f"{prefix}.{self.key}" if self.key else prefix)

    def of(self, pruner: str) -> SparsityError:
        """The same mistake, of the pruner of that name."""
        return self._copy(pruner=pruner)

    def _copy(self, key: str | None = None, pruner: str | None = None) -> SparsityError:
        return SparsityError(
            self.reason,
            key=key or self.key,
            value=self.value,
            cure=self.advice,
            setting=self.setting,
            pruner=pruner or self.pruner,
        )

    def __str__(self) -> str:
        subject = "" if self.key is None else f"{self.key}={self.value}" if self.has_value else self.key
        return f"{f'{subject}: ' if subject else ''}{self.reason}{f'; {self.cure}' if self.cure else ''}"
