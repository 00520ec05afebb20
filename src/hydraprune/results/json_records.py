"""Reading of JSON files that other programs or a failing disk may have changed: each is checked once, by its schema."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError, single_line, typed
from hydraprune.utils.files import read_bytes

# A report of a large model has some hundred thousand bytes, a plan of a thousand jobs a million.
_MOST_BYTES = 1 << 28
_DEEPEST = 32
# Letters that can be neither written nor part of a file's name.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
# Sums and products of a few numbers up to here are still finite.
LARGEST = 1e100
_MOST_CHARACTERS = 60


def read_record(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, of numbers that can be computed with and texts that can be written.

    NaN and Infinity, which other programs may write, become null.

    Returns:
        None if there is no such file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
        values = _parsed(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise damaged(path, "is nested too deep") from None
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    except ValueError as error:
        raise damaged(path, single_line(error)) from None
    if not isinstance(values, dict):
        raise damaged(path, "holds no JSON object")
    return values


class _BeyondError(Exception):
    """A number beyond `LARGEST`."""


def _parsed(text: str) -> Any:
    """The value that JSON text holds; its numbers, letters and depth are those that `check_plain` allows.

    Raises:
        ValueError: it is no JSON, or holds something else.
    """
    try:
        values = json.loads(text, parse_constant=lambda _: None, parse_float=_number, parse_int=_whole_number)
        # Letters that no text has can only be written as escapes.
        if "\\u" not in text and _nesting(values) <= _DEEPEST:
            return values
    except _BeyondError:
        pass
    # Value by value, for an error that names the key.
    values = json.loads(text, parse_constant=lambda _: None)
    check_plain(values)
    return values


def _number(text: str) -> float:
    value = float(text)
    if not -LARGEST <= value <= LARGEST:
        raise _BeyondError
    return value


def _whole_number(text: str) -> int:
    value = int(text)
    if not -LARGEST <= value <= LARGEST:
        raise _BeyondError
    return value


def damaged(path: Path, why: str) -> UserError:
    """The error for a file of ours that is not as we wrote it."""
    return UserError(f"cannot be read ({why})", key=str(path), cure="restore it, or remove it")


def check_plain(value: Any, key: str = "", depth: int = 0) -> None:
    """Refuse numbers that overflow and texts that can be neither written nor the name of a file.

    Args:
        value: as parsed from JSON.
        key: of the value, dotted.
        depth: how many objects and lists it is in.

    Raises:
        ValueError: naming the key.
    """
    if depth > _DEEPEST:
        raise ValueError("is nested too deep")
    if isinstance(value, dict):
        for name, item in value.items():
            check_plain(name, key, depth)
            check_plain(item, f"{key}.{name}" if key else name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_plain(item, key, depth + 1)
    elif isinstance(value, str):
        if _NO_TEXT.search(value):
            raise ValueError(f"{_shown(key)} holds a letter that no text has")
    elif isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{_shown(key)} is a number beyond {LARGEST:g}")


def _nesting(value: Any) -> int:
    """How many objects and lists the innermost value is in."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return 1 + max([_nesting(item) for item in value if isinstance(item, (dict, list))], default=0)


def check_fields(values: Mapping[str, Any], cls: type, shapes: Mapping[str, Any]) -> None:
    """Check the values of a record against the fields of the dataclass that it becomes.

    Args:
        values: keys without a field are not looked at.
        shapes: field -> a narrower annotation than that of the class.

    Raises:
        ValueError: a field without a default is missing, or a value has another type than its field.
    """
    for name, kind, needed in _fields(cls):
        if name in values:
            _checker(shapes.get(name, kind))(values[name], name)
        elif needed:
            raise ValueError(f"{name} is missing")


# Annotations are evaluated once: that takes longer than to check a report by them.
_hints = lru_cache(typing.get_type_hints)


@lru_cache
def _fields(cls: type) -> list[tuple[str, Any, bool]]:
    """(name, annotation, whether it has no default) of the fields of a dataclass."""
    kinds = _hints(cls)
    return [(f.name, kinds[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(cls)]


# Raises ValueError where a value does not fit, with its key.
_Check = Callable[[Any, str], None]


@lru_cache
def _checker(kind: Any) -> _Check:
    """The check of values of one annotation."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(inner)
    if typing.is_typeddict(kind):
        return _typed_dict(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_checker(inner[1]))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _list(_checker(inner[0]))
    if origin is typing.Literal:
        return _literal(inner)
    return _plain(kind)


def _union(options: Sequence[Any]) -> _Check:
    admits_none, checks = type(None) in options, [_checker(kind) for kind in options if kind is not type(None)]

    def check(value: Any, key: str) -> None:
        if value is None and admits_none:
            return None
        problems = []
        for one in checks:
            try:
                return one(value, key)
            except ValueError as error:
                problems.append(error)
        raise problems[0]

    return check


def _typed_dict(kind: Any) -> _Check:
    checks, required = {name: _checker(of_item) for name, of_item in _hints(kind).items()}, kind.__required_keys__

    def check(value: Any, key: str) -> None:
        _check_mapping(value, key)
        for name, one in checks.items():
            if name in value:
                one(value[name], f"{key}.{name}")
            elif name in required:
                raise ValueError(f"{_shown(f'{key}.{name}')} is missing")

    return check


def _mapping(of_item: _Check) -> _Check:
    def check(value: Any, key: str) -> None:
        _check_mapping(value, key)
        for name, item in value.items():
            of_item(item, f"{key}.{name}")

    return check


def _list(of_item: _Check) -> _Check:
    def check(value: Any, key: str) -> None:
        if not isinstance(value, list):
            raise _misfit(key, value, "a list")
        for item in value:
            of_item(item, key)

    return check


def _literal(words: Sequence[Any]) -> _Check:
    def check(value: Any, key: str) -> None:
        if not isinstance(value, str) or value not in words:
            raise _misfit(key, value, " or ".join(map(str, words)))

    return check


def _plain(kind: Any) -> _Check:
    def check(value: Any, key: str) -> None:
        if not _is_plain(value, kind):
            raise _misfit(key, value, _WORDS[kind])

    return check


def _check_mapping(value: Any, key: str) -> None:
    if not isinstance(value, dict):
        raise _misfit(key, value, "a group of keys")


_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "text"}


def _is_plain(value: Any, kind: Any) -> bool:
    """Whether a value has one of the plain types; a value of any other type is not judged."""
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind in (str, Path):
        return isinstance(value, str)
    return kind is not bool or isinstance(value, bool)


def _misfit(key: str, value: Any, wanted: str) -> ValueError:
    shown = "{...}" if isinstance(value, dict) else "[...]" if isinstance(value, list) else typed(value)
    return ValueError(f"{_shown(key)}={_shown(shown)} must be {wanted}")


def _shown(text: str) -> str:
    plain = single_line(text).encode("utf-8", "replace").decode()
    return plain if len(plain) <= _MOST_CHARACTERS else f"{plain[: _MOST_CHARACTERS - 3]}..."
