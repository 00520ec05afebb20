"""The classes of a label column, found in all of its rows."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from hydraprune.data.classes import MISSING, Classes, Meaning, found_meanings, in_order, number_of
from hydraprune.data.readers.json_files import not_one_label
from hydraprune.data.readers.rows import iter_values
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Table
from hydraprune.errors import UserError

log = logging.getLogger(__name__)
MOST_CLASSES = 1000
# Beyond this many classes, most of them must occur more than once.
_FEW_CLASSES = 20
_SCORES_CURE = "for scores use task.regression=true task.metrics=[pearson]"


def find_classes(source: Source, label: str, tables: Sequence[Table]) -> tuple[Classes, list[Meaning | None]]:
    """The classes that occur in the label column of some tables, and what a label of each is among them.

    Args:
        source: the first table's name in errors.

    Raises:
        UserError: the values are no classes.
    """

    def error(reason: str, cure: str) -> UserError:
        return UserError(reason, key="task.label", value=label, cure=cure)

    own = {table.class_names for table in tables if table.class_names is not None}
    if len(own) > 1:
        one, other = (", ".join(names) for names in own)
        raise error(f"the files name its numbers in two ways ({one:.60}; {other:.60})", "give task.labels")
    texts = {value for table in tables if table.untyped for value in iter_values(table.rows, label) if value}
    meanings = found_meanings(tables, texts)
    in_tables: list[set[int | str]] = []
    for table, meaning in zip(tables, meanings, strict=True):
        found = {None if value is None else meaning(value) for value in _single_values(source, label, table)}
        in_tables.append({value for value in found if value is not None})
    classes = set().union(*in_tables)
    if len(classes) > MOST_CLASSES:
        raise error(f"{len(classes)} different values are too many classes", _SCORES_CURE)
    if not classes:
        raise error(f"{source} holds neither whole numbers nor names in it", _SCORES_CURE)
    if both := sorted(v for v in classes if isinstance(v, str) and v.lstrip("-").isdecimal() and int(v) in classes):
        raise error(f"{both[0]} occurs as a number and as a text", "write every label one way")
    count, rows = len(in_tables[0]), len(tables[0])
    if count > _FEW_CLASSES and 2 * count > rows:
        cure = f"name the column of the classes, or list them in task.labels; {_SCORES_CURE}"
        raise error(f"{source} holds {count} different values in {rows} rows, too many for classes", cure)
    _warn_of_missing(source, label, classes)
    _warn_of_near_names(source, label, classes)
    return in_order(classes, tables), [*meanings]


def _single_values(source: Source, label: str, table: Table) -> Iterator[object]:
    for row, value in enumerate(iter_values(table.rows, label), start=1):
        if isinstance(value, (list, Mapping)):
            raise not_one_label(source, label, value, row, "the file")
        yield value


def _warn_of_missing(source: Source, label: str, classes: set[int | str]) -> None:
    """Say that a name such as NA is taken as a class beside numbers."""
    names = [value for value in classes if isinstance(value, str)]
    missing = [name for name in names if name.strip().lower() in MISSING]
    others = [name for name in names if name not in missing]
    if missing and others and all(number_of(name) is not None for name in others):
        log.warning(
            "task.label=%s: %s: %s is taken as a class beside the numbers; if it means no label, leave the row out",
            label, source, missing[0],
        )  # fmt: skip


def _warn_of_near_names(source: Source, label: str, classes: set[int | str]) -> None:
    """Say that names are taken as several classes which differ by case, blanks or Unicode normal form alone."""
    groups: dict[str, list[str]] = {}
    for name in sorted(value for value in classes if isinstance(value, str)):
        folded = unicodedata.normalize("NFKC", " ".join(name.split()).casefold())
        groups.setdefault(folded, []).append(name)
    if near := [names for names in groups.values() if len(names) > 1]:
        log.warning(
            "task.label=%s: %s: %s are taken as different classes and differ only by case, blanks or Unicode form%s; "
            "if they are the same, write them one way",
            label, source, " and ".join(map(ascii, near[0])), f" (and {len(near) - 1} more)" if len(near) > 1 else "",
        )  # fmt: skip
