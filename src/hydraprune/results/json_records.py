"""Reading of JSON files that other programs or a failing disk may have changed: each is checked once, by its schema."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError, single_line, typed
from hydraprune.utils.files import read_bytes

# A report of a large model has some hundred thousand bytes, a plan of a thousand jobs a million.
_MOST_BYTES = 1 << 28
_DEEPEST = 32
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
        values = json.loads(text, parse_constant=lambda _: None)
        check_plain(values)
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
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(f"{_shown(key)} holds a letter that no text has")
    elif isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{_shown(key)} is a number beyond {LARGEST:g}")


def check_fields(values: Mapping[str, Any], cls: type, shapes: Mapping[str, Any]) -> None:
    """Check the values of a record against the fields of the dataclass that it becomes.

    Args:
        values: keys without a field are not looked at.
        shapes: field -> a narrower annotation than that of the class.

    Raises:
        ValueError: a field without a default is missing, or a value has another type than its field.
    """
    kinds = {**typing.get_type_hints(cls), **shapes}
    for field in fields(cls):
        if field.name in values:
            _check(values[field.name], kinds[field.name], field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{field.name} is missing")


def _check(value: Any, kind: Any, key: str) -> None:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        _check_union(value, inner, key)
    elif typing.is_typeddict(kind):
        _check_mapping(value, key)
        for name, of_item in typing.get_type_hints(kind).items():
            if name in value:
                _check(value[name], of_item, f"{key}.{name}")
            elif name in kind.__required_keys__:
                raise ValueError(f"{_shown(f'{key}.{name}')} is missing")
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        _check_mapping(value, key)
        for name, item in value.items():
            _check(item, inner[1], f"{key}.{name}")
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, list):
            raise _misfit(key, value, "a list")
        for item in value:
            _check(item, inner[0], key)
    elif origin is typing.Literal:
        if not isinstance(value, str) or value not in inner:
            raise _misfit(key, value, " or ".join(map(str, inner)))
    elif not _is_plain(value, kind):
        raise _misfit(key, value, _WORDS[kind])


def _check_union(value: Any, options: tuple[Any, ...], key: str) -> None:
    if value is None and type(None) in options:
        return None
    problems = []
    for option in options:
        if option is not type(None):
            try:
                return _check(value, option, key)
            except ValueError as error:
                problems.append(error)
    raise problems[0]


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
