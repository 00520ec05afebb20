"""Data sets with splits: from the hub, from a local folder in its layout, or saved by `save_to_disk`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hydraprune.data.readers.files import FORMATS, DataFile
from hydraprune.data.readers.memory_limits import check_disk
from hydraprune.data.readers.parquet import check_parquet
from hydraprune.data.readers.rows import load_rows
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Columns, Table
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import loading, local_or_id, reason_of

_DATA_SUFFIXES = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow", ".txt", ".gz", ".zip")


def load_splits(
    source: Source,
    subset: str | None,
    revision: str | None,
    splits: Sequence[str],
    columns: Columns,
    scratch: str,
) -> dict[str, Table]:
    """Split name -> rows.

    Args:
        source: hub id or local folder.
        subset, revision: as `datasets.load_dataset` takes them.
        splits: the splits that are used.
        columns: the columns that are used.
        scratch: a folder for the rows of local data, which must outlive them.

    Raises:
        UserError: it cannot be found, reached or read, or lacks a split; names the file at fault if there is one.
    """
    import datasets

    def refuse_missing(names: Iterable[str]) -> None:
        for split in splits:
            if split not in names:
                raise source.error(f"has no split {split}; it has {', '.join(names)}")

    local = local_or_id(source.path, source.key)
    folder = Path(local)
    if folder.exists() and not folder.is_dir():
        raise source.error("is not a folder", f"for a file use task=file task.path={source.path}")
    saved = (folder / "dataset_dict.json").exists()
    data = folder / (subset or "")
    if data.is_dir() and not saved:
        check_disk(source, sum(file.stat().st_size for file in data.rglob("*") if file.is_file()), scratch)
    with loading(source.key, source.path):
        try:
            if saved:
                found = datasets.load_from_disk(local)
            else:
                files = _text_files(local, subset, revision, scratch) if folder.is_dir() else None
                if files is not None:
                    refuse_missing(files)
                    return {split: _read(source, folder, files[split], columns, scratch) for split in splits}
                found = load_rows(local, subset, revision=revision, scratch=scratch)
            refuse_missing(found)
            untyped = not saved and _is_csv(found[splits[0]])
            if untyped:  # by the library alone: packed, or with options of its own
                texts = {"converters": dict.fromkeys(columns.all, str), "keep_default_na": False}
                found = load_rows(local, subset, revision=revision, scratch=scratch, **texts)
            return {split: replace(Table.of_dataset(found[split], columns.label), untyped=untyped) for split in splits}
        except UserError:
            raise
        except Exception as error:  # the library raises dozens of classes
            if folder.is_dir() and (mistake := _diagnose(source, folder, subset, reason_of(error))):
                raise mistake from error
            raise


def data_files(folder: Path, subset: str | None) -> list[Path]:
    """The files that may decide what is read of a local data set, its README.md among them.

    Of a subset that has a folder of its own, those of that folder. Hidden files, and files that `datasets` itself
    leaves there (`cache-*.arrow`), are none.
    """
    below = folder / (subset or "")
    place = below if below.is_dir() else folder
    files = [
        file
        for file in sorted(place.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and not file.name.startswith("cache-")
    ]
    card = folder / "README.md"
    return sorted({*files, card}) if card.is_file() else files


def _is_csv(rows: Any) -> bool:
    """Whether the library has read a csv, in which it guesses types."""
    return getattr(rows.info, "builder_name", None) == "csv"


def _text_files(folder: str, subset: str | None, revision: str | None, scratch: str) -> dict[str, list[Path]] | None:
    """Split name -> its csv, tsv or json files; None for others, and where README.md sets how to read them."""
    import datasets

    config = datasets.load_dataset_builder(folder, subset, revision=revision, cache_dir=scratch).config
    own = {field.name for field in fields(config)} - {field.name for field in fields(datasets.BuilderConfig)}
    plain = type(config)()
    separator = getattr(config, "sep", None)
    changed = {name for name in own if getattr(config, name) != getattr(plain, name)} - {"sep"}
    kind = type(config).__name__
    suffix_of = {",": ".csv", "\t": ".tsv"}
    suffixes = {"JsonConfig": {".json", ".jsonl"}, "CsvConfig": {suffix_of.get(str(separator), "")}}
    found = {str(split): [Path(file) for file in files] for split, files in (config.data_files or {}).items()}
    if changed or {file.suffix for files in found.values() for file in files} - suffixes.get(kind, set()):
        return None
    return found if kind in suffixes else None


def _read(source: Source, folder: Path, files: Sequence[Path], columns: Columns, scratch: str) -> Table:
    """The rows of the files of a split."""
    tables = []
    for file in files:
        format = FORMATS[file.suffix]
        within = source.within(str(file.relative_to(folder) if file.is_relative_to(folder) else file))
        tables.append(DataFile(within, file, format).table(columns, scratch))
    return Table.joined(tables)


def _diagnose(source: Source, folder: Path, subset: str | None, message: str) -> UserError | None:
    """The mistake in a folder that explains the library's message; None if it is not known."""
    if (folder / "state.json").exists():
        return source.error("is one split, made by save_to_disk", "save a DatasetDict with its splits by name")
    if found := re.search(r"BuilderConfig .* not found. Available: \[(.*)\]", message):
        known = found[1].replace("'", "")
        cure = "task.subset=null" if known == "default" else f"one of these, or describe {subset} in its README.md"
        reason = f"{source} has no such subset; it has {known}"
        return UserError(reason, key="task.subset", value=subset, cure=f"give {cure}")
    if "scripts are no longer supported" in message:
        return source.error("its data is generated by a script, which is never run", "save the data as parquet files")
    if not any(file.suffix in _DATA_SUFFIXES for file in folder.rglob("*")):
        return source.error(f"the folder holds no data files ({', '.join(_DATA_SUFFIXES)})")
    if "Couldn't infer the same data file format" in message or "Unable to find" in message:
        reason = "its README.md names splits without files, or with files of two formats"
        return source.error(reason, "correct it")
    for file in sorted(folder.rglob("*.parquet")):
        try:
            check_parquet(source.within(str(file.relative_to(folder))), file)
        except UserError as error:
            return error
    if any(folder.rglob("*.arrow")):
        return source.error(f"is damaged ({message[:80]})", "save or copy it again")
    if "while parsing" in message:
        return source.error(f"its README.md does not begin with valid YAML ({message[:80]})", "correct it")
    return None
