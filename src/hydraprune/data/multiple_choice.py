"""Multiple choice: which of several texts goes with a question; of the hub, or of the user's files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.choice_labels import Choices
from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.record_task import RecordTask
from hydraprune.data.task_checks import as_tuple, freeze_lists
from hydraprune.errors import UserError

log = logging.getLogger(__name__)
# Of so many questions, some should have their first choice as the answer.
_ENOUGH = 20


@dataclass(frozen=True, kw_only=True)
class ChoiceTask(RecordTask):
    """A data set of questions with as many choices each, of which one is right.

    Args:
        text: one or several text columns, joined with a space: the question, and what it is about.
        start: a text column before each choice, as `sent2` of SWAG; None without one.
        choices: a column of lists of texts; `column.key` for a list inside a column, as `choices.text` of
            CommonsenseQA; or several columns, one for each choice.
        label: the column of the right choice: its number from 0, or its letter, `A` for the first.
        (the others as in `RecordTask`)
    """

    labels: None = None
    text: Sequence[str]
    start: str | None
    choices: str | Sequence[str]
    label: str

    def __post_init__(self) -> None:
        freeze_lists(self, "text")
        super().__post_init__()
        if not self.text:
            raise UserError("give at least one text column", key="task.text", value=[])
        if isinstance(self.choices, str):
            return
        object.__setattr__(self, "choices", tuple(self.choices))
        if len(self.choices) < 2:
            raise UserError("give two columns at least, or one of lists", key="task.choices", value=list(self.choices))

    @property
    def columns(self) -> Sequence[str]:
        choices = [name.partition(".")[0] for name in as_tuple(self.choices)]
        return *self.text, *([self.start] if self.start else []), *choices, self.label

    @property
    def class_column(self) -> str | None:
        return None

    def head(self, names: tuple[str, ...]) -> Labels:
        return Choices(choices=max(2, len(names)))

    def names(self, rows: Any) -> tuple[str, ...]:
        """A letter for each choice of the first row."""
        found = len(self._choices(rows[0]) or (0, 0)) if len(rows) else 2
        self._check_count(found)
        return tuple(_letter(place) for place in range(found))

    def _check_count(self, count: int) -> None:
        if count < 2:
            reason = "a question has one choice only, so there is nothing to choose"
            raise UserError(reason, key="task.choices", value=self.choices, cure="give at least two")

    def head_of(self, names: tuple[str, ...], examples: Examples) -> Labels:
        counts = {len(texts) - 1 for texts in examples.texts}
        if len(counts) > 1:
            reason = f"questions have {min(counts)} to {max(counts)} choices"
            raise UserError(reason, key="task.choices", value=self.choices, cure="give each question as many")
        self._check_count(min(counts))
        return Choices(choices=counts.pop())

    @property
    def label_columns(self) -> Sequence[str]:
        return (self.label,)

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        question = [row[column] for column in self.text]
        start = row[self.start] if self.start else ""
        for column, text in zip((*self.text, self.start), (*question, start), strict=True):
            if not isinstance(text, str):
                raise ValueError(f"{column} holds {text!r:.40}, which is no text", "give a column of texts")
        choices = self._choices(row)
        named = " ".join(as_tuple(self.choices))
        if choices is None:
            raise ValueError(f"{named} holds no list of texts", "name a column of lists, or a column for each choice")
        return (" ".join(question), *(f"{start} {choice}".strip() for choice in choices))

    def label_of(self, row: Mapping[str, Any], texts: tuple[str, ...], numbers: Mapping[str | int, int]) -> int:
        expected, found = sum(isinstance(name, str) for name in numbers), len(texts) - 1
        if found != expected:
            reason = f"it has {found} choices, and the first row has {expected}"
            raise ValueError(reason, "give each question as many")
        number = numbers.get(_as_number(row[self.label]))
        if number is None:
            known = ", ".join(name for name in numbers if isinstance(name, str))
            reason = f"{self.label} holds {row[self.label]!r:.40}, none of its choices"
            raise ValueError(reason, f"give a number from 0 to {expected - 1}, or one of {known}")
        return number

    def load(self) -> TaskData:
        found = super().load()
        lowest = min(found.train.labels)
        if lowest > 0 and len(found.train) >= _ENOUGH:
            log.warning(
                "task.label=%s: none of %d questions has its first choice (0, A) as its answer; numbers count from 0",
                self.label,
                len(found.train),
            )
        return found

    def _choices(self, row: Mapping[str, Any]) -> list[str] | None:
        """The choices of a row; None if they are no texts."""
        if isinstance(self.choices, str):
            column, _, key = self.choices.partition(".")
            value = row[column]
            if key:
                value = value.get(key) if isinstance(value, Mapping) else None
            found = value if isinstance(value, list) else None
        else:
            found = [row[column] for column in self.choices]
        return found if found and all(isinstance(choice, str) for choice in found) else None


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _as_number(label: Any) -> Any:
    """A label as a number or a letter; numbers may be written as texts."""
    if isinstance(label, str):
        label = label.strip()
        return int(label) if label.isdecimal() else label.upper()
    return label if isinstance(label, int) and not isinstance(label, bool) else None
