"""Parquet files: checked before a library reads them, and their size from the metadata."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydraprune.data.readers.memory_limits import Volume
from hydraprune.data.readers.source import Source
from hydraprune.errors import single_line

_MAGIC = b"PAR1"


def check_parquet(source: Source, file: Path, columns: Sequence[str] = ()) -> None:
    """Refuse a parquet file that is truncated, damaged or empty, or has a used column twice.

    Args:
        columns: the columns that will be used.

    Raises:
        UserError: naming what is wrong.
    """
    import pyarrow
    from pyarrow import parquet

    with file.open("rb") as opened:
        start = opened.read(64)
        opened.seek(-min(4, file.stat().st_size), os.SEEK_END)
        end = opened.read()
    if start.startswith(b"version https://git-lfs"):
        raise source.error("is only a pointer of Git LFS", "fetch the file itself (git lfs pull)")
    if not start.startswith(_MAGIC):
        raise source.error("is not parquet, in spite of its name", "rename it, or write it again")
    if end != _MAGIC:
        raise source.error(f"is truncated: parquet ends in {_MAGIC.decode()}", "copy or write it again")
    try:
        # `datasets` fails on a file without rows, so they are counted by the plain reader.
        metadata = parquet.read_metadata(file)
        names = parquet.read_schema(file).names
    except (pyarrow.ArrowException, OSError) as error:
        raise source.error(f"is damaged ({single_line(error)[:80]})", "copy or write it again") from None
    if metadata.num_rows == 0:
        raise source.error("the file is empty", "give at least one example")
    for column in columns:
        if names.count(column) > 1:
            raise source.error(f"{names.count(column)} of its columns are called {column}", "rename all but one")


def parquet_names(file: Path) -> list[str]:
    """The names of the columns."""
    from pyarrow import parquet

    return list(parquet.read_schema(file).names)


def parquet_volume(file: Path, text: Sequence[str]) -> Volume:
    """Rows and bytes of the text columns. Too low for repeated texts, which parquet stores once."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(file)
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    return Volume(metadata.num_rows, sum(c.total_uncompressed_size for c in columns if c.path_in_schema in text))


def unpacked_size(file: Path) -> int:
    """Bytes of the rows as Arrow, about."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(file)
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
