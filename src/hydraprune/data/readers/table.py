"""The rows of a split as they were read, with what is known about their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Rows and characters that are held in memory before they are written to the disk.
_CHUNK_ROWS, _CHUNK_TEXT = 10_000, 1 << 26


@dataclass(frozen=True)
class Columns:
    """The columns that a task uses: one or two of texts, and that of the labels."""

    text: tuple[str, ...]
    label: str

    @property
    def all(self) -> tuple[str, ...]:
        """Each of them once."""
        return tuple(dict.fromkeys((*self.text, self.label)))


@dataclass(frozen=True)
class Table:
    """The rows of a split.

    Args:
        rows: a `datasets.Dataset`; it stays on the disk until it is used.
        untyped: the file says only how a label is written (csv, tsv): `07` may be a number or a name, which all rows
            decide together.
        class_names: the names that the data itself gives to its label numbers; None if it gives none.
        multiline: rows that span more than one line of their file.
    """

    rows: Any
    untyped: bool = False
    class_names: tuple[str, ...] | None = None
    multiline: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def with_rows(self, rows: Any) -> Table:
        """The same with other rows of the same source."""
        return replace(self, rows=rows)

    @classmethod
    def of_dataset(cls, rows: Any, label: str) -> Table:
        """Typed rows, with the names that the type of the column `label` gives to its numbers, if any."""
        feature = rows.features.get(label)
        names = getattr(feature, "names", ("False", "True") if getattr(feature, "dtype", "") == "bool" else None)
        return cls(rows, class_names=None if names is None else tuple(names))

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """The rows of several files of one format, one after the other."""
        import datasets

        if len(tables) == 1:
            return tables[0]
        rows = datasets.concatenate_datasets([table.rows for table in tables])
        return replace(tables[0], rows=rows, multiline=sum(table.multiline for table in tables))


def stored_rows(records: Iterable[Sequence[Any]], types: Mapping[str, Any], file: Path) -> Any:
    """Write records to an Arrow file in chunks, and map it into memory.

    Args:
        records: the values of the columns, per row.
        types: column -> Arrow type.

    Raises:
        OSError: the file cannot be written.
    """
    import datasets
    import pyarrow

    schema = pyarrow.schema(dict(types))
    chunk: list[Sequence[Any]] = []
    size = 0

    def write() -> None:
        columns = zip(*chunk, strict=True)
        arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
        writer.write_batch(pyarrow.record_batch(arrays, schema=schema))

    with file.open("wb") as opened, pyarrow.ipc.new_stream(opened, schema) as writer:
        for record in records:
            chunk.append(record)
            size += sum(len(value) for value in record if isinstance(value, str))
            if len(chunk) == _CHUNK_ROWS or size > _CHUNK_TEXT:
                write()
                chunk, size = [], 0
        if chunk:
            write()
    return datasets.Dataset.from_file(str(file))
