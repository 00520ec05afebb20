"""A local folder in the hub's layout, or made by `save_to_disk`: why can it not be loaded?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydraprune.data.examples import load_rows
from hydraprune.data.readers.files import check_parquet
from hydraprune.data.readers.memory_limits import check_disk
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import loading, local_or_id, reason_of


def load_splits(path: str, subset: str | None, revision: str | None, scratch: str) -> Any:
    """Split -> rows, of a data set of the hub or of a local folder.

    Args:
        path: as the user typed it for `task.path`.
        scratch: a folder for the rows of local data, which must outlive them.

    Raises:
        UserError: it cannot be found, reached or read, naming the file at fault where there is one.
    """
    import datasets

    where, source = f"task.path={path}", local_or_id(path, "task.path")
    folder = Path(source)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{where}: is no folder; for a file of your own say task=file task.path={path}")
    saved = (folder / "dataset_dict.json").exists()
    read = folder / (subset or "")
    if read.is_dir() and not saved:
        check_disk(where, sum(file.stat().st_size for file in read.rglob("*") if file.is_file()), scratch)
    with loading("task.path", path):
        try:
            if saved:
                return datasets.load_from_disk(source)
            return load_rows(source, subset, revision=revision, scratch=scratch)
        except Exception as error:  # the library raises dozens of kinds
            if folder.is_dir() and (why := _why(where, folder, subset, reason_of(error))):
                raise UserError(why) from error
            raise


def _why(where: str, folder: Path, subset: str | None, reason: str) -> str | None:
    """What the library's `reason` means; None for one that we do not know."""
    if found := re.search(r"BuilderConfig .* not found. Available: \[(.*)\]", reason):
        known = found[1].replace("'", "")
        cure = "task.subset=null" if known == "default" else f"one of these, or describe {subset} in its README.md"
        return f"task.subset={subset}: {where} has no such subset; it has {known}; give {cure}"
    if (folder / "state.json").exists():
        return f"{where}: is one split, made by save_to_disk; save a DatasetDict with its splits by name"
    if "scripts are no longer supported" in reason:
        return f"{where}: its data come out of a script, which is never run; save them as parquet files"
    if not any(file.suffix in _DATA for file in folder.rglob("*")):
        return f"{where}: the folder holds no data files ({', '.join(_DATA)})"
    if "Couldn't infer the same data file format" in reason or "Unable to find" in reason:
        return f"{where}: its README.md names splits for which no files are there, or files of two kinds; mend it"
    for file in sorted(folder.rglob("*.parquet")):
        try:
            check_parquet(f"{where}: {file.relative_to(folder)}", file)
        except UserError as error:
            return str(error)
    if any(folder.rglob("*.arrow")):
        return f"{where}: is damaged ({reason[:80]}); save or copy it anew"
    if "while parsing" in reason:
        return f"{where}: its README.md does not begin with YAML that can be read ({reason[:80]}); mend it"
    return None


_DATA = (".parquet", ".csv", ".json", ".jsonl", ".arrow", ".txt", ".gz", ".zip")
