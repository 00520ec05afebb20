"""What the values of a label column mean: the classes and their order.

A csv says only how a label is written, so all rows decide together what its labels are:

* whole numbers, if all are (`1.0` is 1, as programs write a column of numbers with a gap in it);
* true and false, if all are, in any spelling;
* otherwise texts, as they are written: `007` beside `7`, `1.1` beside `1.10`.

Fractions beside whole numbers, and more than a few different fractions, look like scores. They are no classes unless
`task.labels` names them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.readers.table import Table

_WHOLE = re.compile(r"[ \t]*-?(?:0|[1-9][0-9]{0,18})(?:\.0*)?[ \t]*")
_NUMBER = re.compile(r"[ \t]*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+|inf|infinity)(?:e[-+]?[0-9]+)?[ \t]*", re.IGNORECASE)
# Whole numbers as programs write them in another base.
_PREFIXED = re.compile(r"[-+]?0(?:x[0-9a-f]+|o[0-7]+|b[01]+)", re.IGNORECASE)
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


def looks_like_a_number(name: str) -> bool:
    """Whether a name may be read as a number, in any spelling: `01`, `+1`, `1,5`, `1e3`, `0x1`, `50%`, any digits."""
    text = unicodedata.normalize("NFKC", name).strip().replace(",", ".").replace("\u2212", "-").removesuffix("%")
    if number_of(text) is not None:
        return True
    try:
        return math.isfinite(float(text))
    except ValueError:
        return _PREFIXED.fullmatch(text) is not None


def named_classes(names: Sequence[str]) -> Classes:
    """Classes whose names and order are given.

    A label may be a name. It may be its place in `names` only where no name looks like a number: with the names 1, 2, 3
    the label 1 is the first, and with 01, 02, 03 it is none.
    """
    indices: dict[int | str, int] = {name: index for index, name in enumerate(names)}
    if not any(map(looks_like_a_number, names)):
        return Classes(tuple(names), {**{index: index for index in range(len(names))}, **indices})
    values = [_whole(name) if _WHOLE.fullmatch(name) else None for name in names]
    # A number that has two names, 1 and 1.0, is neither.
    numbers: dict[int | str, int] = {
        value: index for index, value in enumerate(values) if value is not None and values.count(value) == 1
    }
    return Classes(tuple(names), {**indices, **numbers})


def given_meaning(table: Table, classes: Classes) -> Meaning:
    """What the labels of a table are among classes that are given.

    A name counts before a number. Where the data has names of its own for its numbers, and they are the given ones in
    whatever order, a number stands for its name.
    """
    own = list(table.class_names or ())
    if sorted(own) != sorted(classes.names):
        names = {name.lower(): name for name in classes.names}
        own = [names.get(name.lower(), "") for name in own]
    by_name = sorted(own) == sorted(classes.names)
    number = _number_among(classes.names) if table.untyped else None

    def meaning(value: Any) -> int | str | None:
        if number is not None and value not in classes.indices:
            value = number(value)
        known = normalized_label(value)
        return own[known] if by_name and isinstance(known, int) and 0 <= known < len(own) else known

    return meaning


def _number_among(names: Sequence[str]) -> Callable[[str], Any]:
    """What a text that is no name means among given names: the number it spells, if they allow one, else the text."""
    if not any(map(looks_like_a_number, names)):
        return lambda text: _BOOLEANS.get(text, text) if (number := number_of(text)) is None else number
    booleans = _BOOLEANS if all(_WHOLE.fullmatch(name) for name in names) else {}
    return lambda text: _whole(text) if _WHOLE.fullmatch(text) else booleans.get(text, text)


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
