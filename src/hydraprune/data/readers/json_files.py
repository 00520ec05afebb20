"""json files, a list of objects or one object per line: every value is read as what the file says it is."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydraprune.data.readers.memory_limits import check_json_memory
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Columns, Table, stored_rows
from hydraprune.data.readers.text_columns import not_a_text
from hydraprune.data.readers.text_files import checked_lines, quoted
from hydraprune.errors import UserError

_KINDS = (bool, int, float, str)
_WHOLE_64 = range(-(2**63), 2**63)


def is_json_list(file: Path) -> bool:
    """Whether the file starts with a list; such a file is read as a whole."""
    with file.open("rb") as opened:
        return opened.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


class _LabelKinds:
    """The kinds of the values in a label column: all rows decide its type."""

    def __init__(self, source: Source, label: str) -> None:
        self._source, self._label = source, label
        self._kinds: set[type] = set()
        self._small = True

    def add(self, value: Any, row: int) -> None:
        """Note a value.

        Raises:
            UserError: it is a list or an object.
        """
        if value is None:
            return
        if type(value) not in _KINDS:
            raise not_one_label(self._source, self._label, value, row, "the file")
        self._kinds.add(type(value))
        self._small = self._small and (not isinstance(value, int) or value in _WHOLE_64)

    @property
    def mixed(self) -> bool:
        """Whether some values are texts and others are not, or some true or false and others numbers."""
        return bool(self._kinds) and not any(self._kinds <= kinds for kinds in ({bool}, {int, float}, {str}))

    def arrow_type(self) -> Any:
        """The Arrow type that holds all values; that of texts for values of several kinds."""
        import pyarrow

        if not self._kinds:
            return pyarrow.null()
        if self.mixed or self._kinds == {str}:
            return pyarrow.string()
        if self._kinds == {bool}:
            return pyarrow.bool_()
        return pyarrow.float64() if self.stored is _as_float else pyarrow.int64()

    @property
    def stored(self) -> Callable[[Any], Any]:
        """A value in that type."""
        if self.mixed:
            return str
        whole = self._kinds <= {int} and self._small
        return _as_float if self._kinds <= {int, float} and not whole else _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # more digits than any class has
        return math.inf


class JsonFile:
    """A json file of objects."""

    def __init__(self, source: Source, path: Path) -> None:
        self.source, self.path = source, path
        self._names: dict[str, None] = {}
        self._type: Any = None
        self._mixed = False
        self._stored: Callable[[Any], Any] = _as_it_is

    def check(self, label: str) -> None:
        """Refuse a file that is neither a list of objects nor one object per line, or too large a list.

        Args:
            label: the label column, whose type all rows decide.

        Raises:
            UserError: naming the line and what is wrong with it; a label that is a list or an object.
        """
        kinds = _LabelKinds(self.source, label)
        for row, item in enumerate(self._objects(), start=1):
            self._names.update(dict.fromkeys(item))
            kinds.add(item.get(label), row)
        self._type, self._mixed, self._stored = kinds.arrow_type(), kinds.mixed, kinds.stored

    def column_names(self) -> list[str]:
        """The names in any of the objects, as `check` found them."""
        return list(self._names)

    def table(self, columns: Columns, file: Path) -> Table:
        """The texts and labels of all objects of a file that was checked; a missing value is null.

        Args:
            file: where the rows are stored.

        Raises:
            UserError: a text is not a text, naming the row.
            OSError: the rows cannot be stored.
        """
        import pyarrow

        types = {**dict.fromkeys(columns.text, pyarrow.string()), columns.label: self._type}
        table = Table.of_dataset(stored_rows(self._rows(columns), types, file), columns.label)
        # Values of several kinds are texts: 1 beside "no" may be a place among the classes or the name of one.
        return replace(table, untyped=self._mixed)

    def _rows(self, columns: Columns) -> Iterator[list[Any]]:
        for row, item in enumerate(self._objects(), start=1):
            for column in columns.text:
                if not isinstance(item.get(column), (str, type(None))):
                    raise not_a_text(self.source, column, item[column], row, "the file")
            values = [item.get(column) for column in columns.all]
            if values[-1] is not None:
                values[-1] = self._stored(values[-1])
            yield values

    def _objects(self) -> Iterator[dict[str, Any]]:
        if not is_json_list(self.path):
            yield from self._lines()
            return
        check_json_memory(self.source, self.path)
        for _ in checked_lines(self.source, self.path, longest=None):
            pass
        yield from self._items()

    def _lines(self) -> Iterator[dict[str, Any]]:
        for number, line in checked_lines(self.source, self.path):
            stripped = line.strip()
            if not stripped:
                continue
            if not (stripped.startswith(b"{") and stripped.endswith(b"}")):
                raise self.source.error(
                    f"line {number} is not a whole json object ({quoted(stripped)})",
                    "give one object per line, or a list of objects",
                )
            try:
                yield json.loads(stripped.decode("utf-8"), object_pairs_hook=_checked_object)
            except (ValueError, RecursionError) as error:
                reason = f"line {number} is not json ({error}: {quoted(stripped)})"
                raise self.source.error(reason, "give one json object per line") from None

    def _items(self) -> list[dict[str, Any]]:
        try:
            items = json.loads(self.path.read_text(encoding="utf-8-sig"), object_pairs_hook=_checked_object)
        except (ValueError, RecursionError) as error:
            raise self.source.error(f"is not a whole json list ({error})", "give a list of objects") from None
        for number, item in enumerate(items, start=1):
            if not isinstance(item, dict):
                shown = quoted(json.dumps(item))
                raise self.source.error(f"item {number} of its list is {shown}", "give a list of objects")
        return list(items)


def not_one_label(source: Source, label: str, value: Any, row: int, split: str) -> UserError:
    """A label that is a list or an object."""
    kind = "a list" if isinstance(value, (list, tuple)) else "an object"
    return UserError(
        f"{source}: row {row} of {split} holds {kind} ({str(value)[:40]})",
        key="task.label",
        value=label,
        cure="give one label an example; several (multi-label) are not supported yet",
    )


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A json object with unique names, whose texts can be encoded.

    Raises:
        ValueError: it is not.
    """
    values = dict(pairs)
    for name, value in pairs:
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{name} holds half of a surrogate pair")
    if len(values) < len(pairs):
        raise ValueError("a name occurs twice")
    return values
