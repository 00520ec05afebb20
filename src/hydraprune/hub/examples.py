"""Rows of a data set as checked examples."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.errors import UserError
from hydraprune.hub.offline import is_local

# The subset drawn by max_train_examples is part of the task, not of the run: every seed trains on the same one.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Labels:
    """What a head predicts: class names in the order of its outputs, or one score."""

    names: tuple[str, ...]
    regression: bool = False

    @property
    def count(self) -> int:
        """Outputs of the head."""
        return len(self.names)


SCORE = Labels(("score",), regression=True)


@dataclass(frozen=True)
class Examples:
    """Texts (one or two per example) and their labels: places in `Labels.names`, or scores."""

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[float]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TaskData:
    """A task's examples: one training set, one or more evaluation sets by name, the first the main one."""

    train: Examples
    evaluations: Mapping[str, Examples]
    labels: Labels


def load_rows(source: str, *arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset`; local data through no cache.

    The library's cache knows a local folder by its last name, so that a second `glue` elsewhere
    would be given the rows of the first.
    """
    import datasets

    if "data_files" in options:
        options["data_files"] = glob.escape(options["data_files"])
    elif not is_local(source):
        return datasets.load_dataset(source, *arguments, **options)
    with tempfile.TemporaryDirectory() as folder:
        return datasets.load_dataset(source, *arguments, cache_dir=folder, keep_in_memory=True, **options)


def subset(rows: Any, size: int | None) -> Any:
    """A random `size` of the rows, always the same; all of them for None."""
    return rows if size is None or size >= len(rows) else rows.shuffle(seed=SUBSET_SEED).select(range(size))


def set_apart(rows: Any, share: float, otherwise: str = "") -> tuple[Any, Any]:
    """The rows in two: those to train on, and a random `share` of them to evaluate on, always the same.

    Args:
        otherwise: what a user may say instead of another share.

    Raises:
        UserError: one of the two would be empty.
    """
    apart = round(len(rows) * share)
    if not 0 < apart < len(rows):
        raise UserError(
            f"task.validation_share={share}: leaves {len(rows) - apart} of {len(rows)} examples to train on and "
            f"{apart} to evaluate on; give another share{otherwise}"
        )
    parts = rows.train_test_split(test_size=apart, seed=SUBSET_SEED)
    return parts["train"], parts["test"]


@dataclass(frozen=True)
class Reader:
    """Columns of a data set as examples, each value checked.

    Args:
        where: what the data is called in errors, as in `task.path=...`.
        places: label as it stands in the data -> place in the head's outputs; None for scores.
    """

    where: str
    text: tuple[str, ...]
    label: str
    places: Mapping[int | str, int] | None

    def examples(self, rows: Any, split: str) -> Examples:
        """The examples of one split.

        Raises:
            UserError: the split is empty, a column is missing, a text is null, or a label is not known.
        """
        if len(rows) == 0:
            raise UserError(f"{self.where}: split {split} is empty; give data with at least one example")
        for key, column in [*(("text", c) for c in self.text), ("label", self.label)]:
            if column not in rows.column_names:
                raise UserError(
                    f"task.{key}={column}: {self.where} has no such column; it has {', '.join(rows.column_names)}"
                )
        texts = list(zip(*(rows[column] for column in self.text), strict=True))
        for row, parts in enumerate(texts):
            if not all(isinstance(part, str) for part in parts):
                columns = ", ".join(self.text)
                raise UserError(f"{self.where}: example {row} of {split} has no text in {columns}; each needs some")
        return Examples(texts, [self._value(value, row, split) for row, value in enumerate(rows[self.label])])

    def _value(self, value: Any, row: int, split: str) -> float:
        where = f"task.label={self.label}: {value!r} in example {row} of {split}"
        if self.places is None:
            if isinstance(value, (int, float)) and abs(value) < float("inf"):
                return float(value)
            raise UserError(f"{where} is not a number")
        key = plain_label(value)
        if key is not None and key in self.places:
            return self.places[key]
        hidden = "; the labels of this split are not public" if value == -1 else ""
        known = ", ".join(str(name) for name in list(self.places)[:8])
        raise UserError(f"{where} is not one of the {len(set(self.places.values()))} labels ({known}){hidden}")


def plain_label(value: Any) -> int | str | None:
    """Spellings of one class made equal: True and 1, 1.0 and 1."""
    if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value if isinstance(value, str) and value.strip() else None


def places_of(names: Sequence[str]) -> dict[int | str, int]:
    """Classes known by their number or by their name."""
    places: dict[int | str, int] = {place: place for place in range(len(names))}
    return places | {name: place for place, name in enumerate(names)}
