"""Columns of a data set as checked examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.examples import Examples
from hydraprune.data.readers.memory_limits import Volume
from hydraprune.data.readers.rows import iter_values
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.text_columns import check_texts
from hydraprune.errors import UserError


@dataclass(frozen=True)
class ColumnReader:
    """Reads text and label columns, checking every value.

    Args:
        source: the data's name in errors.
        text: one or two text columns.
        label: label column.
        label_indices: value in the label column -> output of the head; None for scores.
    """

    source: Source
    text: tuple[str, ...]
    label: str
    label_indices: Mapping[int | str, int] | None

    def check(self, rows: Any, split: str) -> Volume:
        """Check all rows of a split, before a subset is drawn, in chunks.

        Args:
            split: name of the rows in errors, as in `split train`.

        Returns:
            The size of the data.

        Raises:
            UserError: the split is empty, a column is missing, a text is null, or a label is
                unknown. Rows are counted from 1.
        """
        if len(rows) == 0:
            raise self.source.error(f"{split} is empty", "give data with at least one example")
        for key, column in [*(("task.text", c) for c in self.text), ("task.label", self.label)]:
            if column not in rows.column_names:
                known = ", ".join(name if name == name.strip() != "" else repr(name) for name in rows.column_names)
                reason = f"{self.source} has no such column; it has {known[:400]}"
                raise UserError(reason, key=key, value=column)
        size = sum(check_texts(rows, column, self.source, split) for column in self.text)
        for row, value in enumerate(iter_values(rows, self.label), start=1):
            self._label(value, row, split)
        return Volume(len(rows), size)

    def examples(self, rows: Any) -> Examples:
        """The examples of checked rows."""
        texts = list(zip(*(rows[column] for column in self.text), strict=True))
        return Examples(texts, [self._label(value, row) for row, value in enumerate(rows[self.label], start=1)])

    def _label(self, value: Any, row: int, split: str = "the split") -> float:
        if self.label_indices is None:
            if isinstance(value, (int, float)) and abs(value) < float("inf"):
                return float(value)
        else:
            key = normalized_label(value)
            if key is not None and key in self.label_indices:
                return self.label_indices[key]
        raise self._label_error(value, row, split)

    def _label_error(self, value: Any, row: int, split: str) -> UserError:
        def error(reason: str, cure: str | None = None) -> UserError:
            return UserError(f"{self.source}: {reason}", key="task.label", value=self.label, cure=cure)

        if value is None:
            return error(f"row {row} of {split} has no label", "each needs one")
        found = f"{value!r:.60} in row {row} of {split}"
        if self.label_indices is None:
            return error(f"{found} is not a number", "for classes use task.regression=false")
        known = ", ".join(str(name) for name in list(self.label_indices)[:8])
        hint = "the labels of this split are not public" if value == -1 else None
        return error(f"{found} is not one of the {len(set(self.label_indices.values()))} labels ({known})", hint)


def normalized_label(value: Any) -> int | str | None:
    """One value for all spellings of a class: True and 1, 1.0 and 1; None if it is no whole number or name."""
    # Beyond 2^53 a float stands for several whole numbers.
    if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer() and abs(value) < 2**53):
        return int(value)
    return value if isinstance(value, str) and value.strip() else None


def label_indices(names: Sequence[str]) -> dict[int | str, int]:
    """The index of every class, by its number and by its name."""
    indices: dict[int | str, int] = {index: index for index in range(len(names))}
    return indices | {name: index for index, name in enumerate(names)}
