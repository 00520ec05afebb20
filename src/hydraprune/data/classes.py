"""What the values of a label column mean: the classes and their order.

A csv says only how a label is written, so all rows decide together what its labels are:

* whole numbers, if all are (`1.0` is 1, as programs write a column of numbers with a gap in it);
* true and false, if all are, in any spelling;
* otherwise texts, as they are written: `007` beside `7`, `1.1` beside `1.10`.

Fractions beside whole numbers, and more than a few different fractions, look like scores. They are no classes unless
`task.labels` names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.readers.table import Table

_WHOLE = re.compile(r"[ \t]*-?(?:0|[1-9][0-9]{0,18})(?:\.0*)?[ \t]*")
_NUMBER = re.compile(r"[ \t]*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+|inf|infinity)(?:e[-+]?[0-9]+)?[ \t]*", re.IGNORECASE)
_BOOLEANS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
# How a missing value is often written, in small letters.
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none")
# Up to this many different fractions may be names of classes; more are scores.
_MOST_FRACTIONS = 20
# A label's class: one value for all its spellings, or None where it is no class.
Meaning = Callable[[Any], "int | str | None"]


@dataclass(frozen=True)
class Classes:
    """Classes in the order of the head's outputs.

    Args:
        names: their names.
        indices: class, as `Meaning` gives it -> output of the head.
    """

    names: tuple[str, ...]
    indices: Mapping[int | str, int]


def normalized_label(value: Any) -> int | str | None:
    """One value for all spellings of a class: True and 1, 1.0 and 1; None if it is no whole number or name."""
    # Beyond 2^53 a float stands for several whole numbers.
    if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer() and abs(value) < 2**53):
        return int(value)
    return value if isinstance(value, str) and value.strip() else None


def number_of(text: str) -> float | None:
    """The number that a text spells, white space around it allowed; None if it spells none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def named_classes(names: Sequence[str]) -> Classes:
    """Classes whose names and order are given.

    A label may be a name, or its place in `names`. Names that are whole numbers are not mixed up with places: with the
    names 1, 2, 3 the label 1 is the first.
    """
    indices: dict[int | str, int] = {name: index for index, name in enumerate(names)}
    if all(_WHOLE.fullmatch(name) for name in names):
        return Classes(tuple(names), {**indices, **{_whole(name): index for index, name in enumerate(names)}})
    return Classes(tuple(names), {**{index: index for index in range(len(names))}, **indices})


def given_meaning(table: Table, classes: Classes) -> Meaning:
    """What the labels of a table are among classes that are given.

    A name counts before a number. Where the data has names of its own for its numbers, and they are the given ones in
    whatever order, a number stands for its name.
    """
    names = {name.lower(): name for name in classes.names}
    own = [names.get(name.lower(), "") for name in table.class_names or ()]
    by_name = sorted(own) == sorted(classes.names)

    def meaning(value: Any) -> int | str | None:
        if table.untyped and value not in classes.indices:
            value = _BOOLEANS.get(value, value) if number_of(value) is None else number_of(value)
        known = normalized_label(value)
        return own[known] if by_name and isinstance(known, int) and 0 <= known < len(own) else known

    return meaning


def found_meanings(tables: Sequence[Table], texts: Collection[str]) -> list[Meaning]:
    """What the labels of some tables are where the classes are those that occur in them.

    Args:
        texts: the different labels of all tables whose labels are not typed.
    """
    own = next((table.class_names for table in tables if table.class_names is not None), None)
    of_text = _meaning_of_texts([text for text in texts if text.strip()], own)

    def named(meaning: Meaning) -> Meaning:
        if own is None:
            return meaning

        def name(value: Any) -> int | str | None:
            known = meaning(value)
            return (own[known] if 0 <= known < len(own) else None) if isinstance(known, int) else known

        return name

    return [named(of_text if table.untyped else normalized_label) for table in tables]


def _meaning_of_texts(texts: Sequence[str], own: Sequence[str] | None) -> Meaning:
    """The meaning of the labels of a csv, given all that occur and are not blank."""
    if all(_WHOLE.fullmatch(text) for text in texts):
        return lambda text: _whole(text) if text.strip() else None
    if all(text in _BOOLEANS for text in texts):
        styles = {(text.islower(), text.isupper()) for text in texts}
        if len(styles) > 1 or own is not None:
            return lambda text: str(_BOOLEANS[text]) if text.strip() else None
    elif _are_scores(texts):
        return lambda text: normalized_label(number_of(text)) if text.strip() else None
    return normalized_label


def _whole(text: str) -> int:
    return int(text.partition(".")[0])


def _are_scores(texts: Sequence[str]) -> bool:
    """Whether labels are scores rather than names: fractions, each of them written in one way."""
    numbers = [number_of(text) for text in texts]
    if None in numbers or all(number is not None and number.is_integer() for number in numbers):
        return False
    if len(set(numbers)) < len({text.strip() for text in texts}):
        return False
    return len(texts) > _MOST_FRACTIONS or any(_WHOLE.fullmatch(text) and "." not in text for text in texts)


def in_order(found: Collection[int | str], tables: Sequence[Table]) -> Classes:
    """The classes that occur, in the order of the head's outputs: numbers, then texts.

    Names that the data itself gives are in its order. Labels of a csv that are numbers written as names, such as `007`,
    are in the order of the numbers.
    """
    own = next((table.class_names for table in tables if table.class_names is not None), ())
    place = {name: index for index, name in enumerate(own)}
    untyped = all(table.untyped for table in tables)
    numeric = untyped and all(isinstance(value, int) or number_of(value) is not None for value in found)

    def key(value: int | str) -> tuple[Any, ...]:
        return (isinstance(value, str), place.get(str(value), len(own)), float(value) if numeric else 0.0, value)

    classes = sorted(found, key=key)
    return Classes(tuple(map(str, classes)), {value: index for index, value in enumerate(classes)})
