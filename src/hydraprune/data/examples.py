"""Rows of a data set as checked examples."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydraprune.data.readers.memory_limits import Volume
from hydraprune.data.readers.texts import check_texts
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import is_local

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


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder for rows while they are read.

    Raises:
        UserError: there is no place for one.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="hydraprune-data-", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(
            f"TMPDIR={os.environ.get('TMPDIR', '')}: no folder to unpack data in ({error.strerror}); set the "
            f"environment variable to a folder that you may write"
        ) from None
    with folder as name:
        yield name


def load_rows(source: str, *arguments: Any, scratch: str, **options: Any) -> Any:
    """`datasets.load_dataset`; local data through no cache.

    The library's cache knows a local folder by its last name, so that a second `glue` elsewhere
    would be given the rows of the first.

    Args:
        scratch: a folder for the rows of local data, which must outlive them: they are read in pieces,
            kept there and mapped into memory, so that a file may be larger than that.
    """
    import datasets

    if "data_files" in options:
        options["data_files"] = glob.escape(options["data_files"])
    elif not is_local(source):
        return datasets.load_dataset(source, *arguments, **options)
    return datasets.load_dataset(source, *arguments, cache_dir=scratch, **options)


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

    def check(self, rows: Any, split: str) -> Volume:
        """Look at every row as the user wrote it down, before some are drawn; in pieces.

        Args:
            split: what the rows are called in errors, as in `split train`.

        Returns:
            How much text there is.

        Raises:
            UserError: the split is empty, a column is missing, a text is null, or a label is not known.
                Rows are counted from 1.
        """
        if len(rows) == 0:
            raise UserError(f"{self.where}: {split} is empty; give data with at least one example")
        for key, column in [*(("text", c) for c in self.text), ("label", self.label)]:
            if column not in rows.column_names:
                named = ", ".join(name if name == name.strip() != "" else repr(name) for name in rows.column_names)
                raise UserError(f"task.{key}={column}: {self.where} has no such column; it has {named[:400]}")
        size = sum(check_texts(rows, column, self.where, split) for column in self.text)
        for row, value in enumerate(values(rows, self.label), start=1):
            self._place(value, row, split)
        return Volume(len(rows), size)

    def examples(self, rows: Any) -> Examples:
        """The examples of rows that were checked."""
        texts = list(zip(*(rows[column] for column in self.text), strict=True))
        return Examples(texts, [self._place(value, row) for row, value in enumerate(rows[self.label], start=1)])

    def _place(self, value: Any, row: int, split: str = "the split") -> float:
        if self.places is None:
            if isinstance(value, (int, float)) and abs(value) < float("inf"):
                return float(value)
        else:
            key = plain_label(value)
            if key is not None and key in self.places:
                return self.places[key]
        raise UserError(self._refusal(value, row, split))

    def _refusal(self, value: Any, row: int, split: str) -> str:
        where = f"task.label={self.label}: {self.where}:"
        if value is None:
            return f"{where} row {row} of {split} has no label; each needs one"
        where = f"{where} {value!r:.60} in row {row} of {split}"
        if self.places is None:
            return f"{where} is not a number; for classes say task.regression=false"
        hidden = "; the labels of this split are not public" if value == -1 else ""
        known = ", ".join(str(name) for name in list(self.places)[:8])
        return f"{where} is not one of the {len(set(self.places.values()))} labels ({known}){hidden}"


def values(rows: Any, column: str) -> Iterator[Any]:
    """A column's values, a thousand at a time in memory."""
    for batch in rows.select_columns([column]).iter(batch_size=1000):
        yield from batch[column]


def plain_label(value: Any) -> int | str | None:
    """Spellings of one class made equal: True and 1, 1.0 and 1."""
    # A float further out is no whole number but the nearest one that a float can be.
    if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer() and abs(value) < 2**53):
        return int(value)
    return value if isinstance(value, str) and value.strip() else None


def places_of(names: Sequence[str]) -> dict[int | str, int]:
    """Classes known by their number or by their name."""
    places: dict[int | str, int] = {place: place for place in range(len(names))}
    return places | {name: place for place, name in enumerate(names)}
