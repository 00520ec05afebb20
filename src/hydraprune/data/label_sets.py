"""Multi-label tasks: any number of classes for each text, of the hub or of the user's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.examples import Labels
from hydraprune.data.labels import LabelSets
from hydraprune.data.record_task import RecordTask, names_in, number_of
from hydraprune.data.task_checks import as_tuple, check_columns, freeze_lists
from hydraprune.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LabelSetTask(RecordTask):
    """A data set in which each text has any number of classes.

    Args:
        text: one or two text columns.
        label: a column of lists, of names or numbers of classes; or several columns of 0 and 1, one for each class, and
            named like it.
        (the others as in `RecordTask`)
    """

    text: Sequence[str]
    label: str | Sequence[str]

    def __post_init__(self) -> None:
        freeze_lists(self, "text")
        super().__post_init__()
        if self._is_list:
            check_columns(self.text, str(self.label), None)
            return
        object.__setattr__(self, "label", tuple(self.label))
        if len(set(self.label)) < 2:
            raise UserError("give two columns at least, or one of lists", key="task.label", value=list(self.label))
        if self.labels is not None:
            reason = "the columns of task.label name the classes"
            raise UserError(reason, key="task.labels", value=list(self.labels), cure="leave it out")

    @property
    def _is_list(self) -> bool:
        return isinstance(self.label, str)

    @property
    def columns(self) -> Sequence[str]:
        return *self.text, *as_tuple(self.label)

    @property
    def class_column(self) -> str | None:
        return str(self.label) if self._is_list else None

    def head(self, names: tuple[str, ...]) -> Labels:
        return LabelSets(names)

    def names(self, rows: Any) -> tuple[str, ...]:
        if not self._is_list:
            return as_tuple(self.label)
        return names_in(rows, str(self.label)) if self.labels is None else as_tuple(self.labels)

    @property
    def label_columns(self) -> Sequence[str]:
        return as_tuple(self.label)

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        texts = tuple(row[column] for column in self.text)
        for column, text in zip(self.text, texts, strict=True):
            if not isinstance(text, str):
                raise ValueError(f"{column} holds {text!r:.40}, which is no text", "give a column of texts")
        return texts

    def label_of(self, row: Mapping[str, Any], texts: tuple[str, ...], numbers: Mapping[str | int, int]) -> list[int]:
        if self._is_list:
            given = row[str(self.label)]
            if not isinstance(given, list):
                raise ValueError(f"{self.label} holds {given!r:.40}, no list", "name several columns of 0 and 1")
            cure = "give each class that a text has once; for a 0 or 1 of each class give columns: task.label=[A,B]"
            if any(isinstance(value, bool | float) for value in given):
                raise ValueError(f"{self.label} holds {given!r:.60}, which name no classes", cure)
            found = [number_of(value, numbers) for value in given]
            if len(set(found)) < len(found):
                raise ValueError(f"{self.label} holds {given!r:.60}, a class twice", cure)
            return sorted(found)
        values = {name: row[name] for name in as_tuple(self.label)}
        for name, value in values.items():
            if value not in (0, 1, "0", "1"):
                raise ValueError(f"{name} holds {value!r:.40}", "give 0 or 1")
        return [numbers[name] for name, value in values.items() if int(value)]
