"""Columns of a data set as checked examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.classes import MISSING, Classes, Meaning, looks_like_a_number, number_of
from hydraprune.data.examples import Examples
from hydraprune.data.readers.files import check_names
from hydraprune.data.readers.json_files import not_one_label
from hydraprune.data.readers.memory_limits import Volume
from hydraprune.data.readers.rows import iter_values
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Columns, Table
from hydraprune.data.readers.text_columns import check_texts
from hydraprune.errors import UserError


@dataclass(frozen=True)
class ColumnReader:
    """Reads text and label columns, checking every value.

    Args:
        source: the data's name in errors.
        columns: one or two text columns, and the label column.
        classes: the classes; None for scores.
        meaning: what a label is among them.
    """

    source: Source
    columns: Columns
    classes: Classes | None = None
    meaning: Meaning | None = None

    def check(self, table: Table, split: str) -> Volume:
        """Check all rows of a split, before a subset is drawn, in chunks.

        Args:
            split: name of the rows in errors, as in `split train`.

        Returns:
            The size of the data.

        Raises:
            UserError: the split is empty, a column is missing, a text is null, or a label is
                unknown. Rows are counted from 1.
        """
        rows = table.rows
        if len(rows) == 0:
            raise self.source.error(f"{split} is empty", "give data with at least one example")
        check_names(self.source, self.columns, rows.column_names)
        size = sum(check_texts(rows, column, self.source, split) for column in self.columns.text)
        for row, value in enumerate(iter_values(rows, self.columns.label), start=1):
            self._label(value, row, split)
        return Volume(len(rows), size)

    def examples(self, table: Table) -> Examples:
        """The examples of checked rows."""
        rows = table.rows
        texts = list(zip(*(rows[column] for column in self.columns.text), strict=True))
        return Examples(texts, [self._label(value, row) for row, value in enumerate(rows[self.columns.label], start=1)])

    def _label(self, value: Any, row: int, split: str = "the split") -> float:
        if self.classes is None or self.meaning is None:
            score = number_of(value) if isinstance(value, str) else value
            if isinstance(score, (int, float)) and abs(score) < float("inf"):
                return float(score)
        elif value is not None and not isinstance(value, (list, Mapping)):
            known = self.meaning(value)
            if known is not None and known in self.classes.indices:
                return self.classes.indices[known]
        raise self._label_error(value, row, split)

    def _label_error(self, value: Any, row: int, split: str) -> UserError:
        def error(reason: str, cure: str | None = None) -> UserError:
            return UserError(f"{self.source}: {reason}", key="task.label", value=self.columns.label, cure=cure)

        if value is None:
            return error(f"row {row} of {split} has no label", "each needs one")
        if isinstance(value, (list, Mapping)):
            return not_one_label(self.source, self.columns.label, value, row, split)
        missing = isinstance(value, str) and value.strip().lower() in MISSING
        if self.classes is None:
            if missing:
                return error(f"row {row} of {split} has no score ({value!r})", "each needs one; leave the row out")
            return error(
                f"{value!r:.60} in row {row} of {split} is not a number", "for classes use task.regression=false"
            )
        names = self.classes.names
        known = ", ".join(names[:8])
        shown = f"{value!r:.60}" if missing or self._is_name(value) else f"{value!s:.60}"
        return error(
            f"{shown} in row {row} of {split} is not one of the {len(names)} labels ({known})", _hint(value, names)
        )

    @staticmethod
    def _is_name(value: Any) -> bool:
        return isinstance(value, str) and number_of(value) is None


def _hint(label: Any, names: Sequence[str]) -> str | None:
    """What may be wrong with a label that is none of the classes."""
    number = number_of(label) if isinstance(label, str) else label
    if number == -1:
        return "the labels of this split are not public"
    if isinstance(number, float) and not number.is_integer():
        return "for scores use task.regression=true; for names of classes list all of them in task.labels"
    if number is not None and not isinstance(number, str) and any(map(looks_like_a_number, names)):
        return "where task.labels holds a number, a label is one of its names as it is written there, not a place in it"
    return None
