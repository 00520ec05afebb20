"""Rows of a data set by the `datasets` library: loading, drawing a subset, splitting."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydraprune.data.readers.table import Table
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import is_local

# The subset drawn by max_train_examples belongs to the task, not to the run: every seed trains on the same one.
SUBSET_SEED = 0


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A temporary folder for rows while they are read.

    Raises:
        UserError: none can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="hydraprune-data-", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(
            f"no folder to unpack data in ({error.strerror})",
            key="TMPDIR",
            value=os.environ.get("TMPDIR", ""),
            cure="set the environment variable to a folder with write access",
        ) from None
    with folder as name:
        yield name


def load_rows(source: str, *arguments: Any, scratch: str, **options: Any) -> Any:
    """`datasets.load_dataset`, bypassing the library's cache for local data.

    That cache identifies a local folder by its last name, so a second folder `glue` elsewhere would
    get the rows of the first.

    Args:
        scratch: a folder for the rows of local data, which must outlive them: they are read in
            chunks, stored there and memory-mapped, so a file may be larger than memory.
    """
    import datasets

    if "data_files" in options:
        options["data_files"] = glob.escape(options["data_files"])
    elif not is_local(source):
        return datasets.load_dataset(source, *arguments, **options)
    return datasets.load_dataset(source, *arguments, cache_dir=scratch, **options)


def subset(table: Table, size: int | None) -> Table:
    """A random `size` of the rows, the same at every call; all rows for None."""
    if size is None or size >= len(table):
        return table
    return table.with_rows(table.rows.shuffle(seed=SUBSET_SEED).select(range(size)))


def split_off(table: Table, share: float, alternative: str = "") -> tuple[Table, Table]:
    """(training rows, evaluation rows): a random `share` of the rows for evaluation, the same at every call.

    Args:
        alternative: what a user may give instead of another share, for the error.

    Raises:
        UserError: one of the two would be empty.
    """
    evaluated = round(len(table) * share)
    if not 0 < evaluated < len(table):
        raise UserError(
            f"leaves {len(table) - evaluated} of {len(table)} examples to train on and {evaluated} to evaluate on",
            key="task.validation_share",
            value=share,
            cure=f"give another share{alternative}",
        )
    split = table.rows.train_test_split(test_size=evaluated, seed=SUBSET_SEED)
    return table.with_rows(split["train"]), table.with_rows(split["test"])


def iter_values(rows: Any, column: str) -> Iterator[Any]:
    """The values of a column, a thousand at a time in memory."""
    for batch in rows.select_columns([column]).iter(batch_size=1000):
        yield from batch[column]
