"""Records: rows whose columns hold lists or nested values, of files, folders and the hub, by the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydraprune.data.readers.rows import load_rows
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.squad_files import squad_rows
from hydraprune.data.readers.text_files import checked_lines
from hydraprune.utils.hub_access import at_home, loading, local_or_id

_BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
# Files of words and tags, a word a line and an empty line between sentences.
_COLUMNS = (".conll", ".iob", ".txt")
# A comment before a sentence, as in `# sent_id = 3`.
_COMMENT = re.compile(r"# *[\w.:-]+ *=")


def is_file(path: str) -> bool:
    """Whether a path is that of a file, rather than of a folder or data set."""
    return at_home(path).is_file()


def load_records(
    source: Source,
    subset: str | None,
    revision: str | None,
    splits: Sequence[str],
    columns: Sequence[str],
    scratch: str,
) -> dict[str, Any]:
    """Split name -> rows, a `datasets.Dataset`.

    Args:
        source: hub id or local folder.
        subset, revision: as `datasets.load_dataset` takes them.
        splits, columns: those that are used.
        scratch: see `load_rows`.

    Raises:
        UserError: it cannot be found, reached or read, or lacks a split or a column.
    """
    import datasets

    local = local_or_id(source.path, source.key)
    with loading(source.key, source.path):
        if (Path(local) / "state.json").exists():
            raise source.error("is one set without splits", "save a DatasetDict with train and validation")
        if (Path(local) / "dataset_dict.json").exists():
            found = datasets.load_from_disk(local)
        else:
            found = load_rows(local, subset, revision=revision, scratch=scratch)
    for split in splits:
        if split not in found:
            raise source.error(f"has no split {split}; it has {', '.join(found)}")
        _check_columns(source, found[split], columns)
    return {split: found[split] for split in splits}


def read_records(source: Source, columns: Sequence[str], scratch: str) -> Any:
    """The rows of a csv, tsv, json, parquet or word-per-line file, a `datasets.Dataset`.

    Args:
        columns: those that are used. A word-per-line file has the first two: words, and tags. Of one column, `.conll`
            and `.iob` have words, and `.txt` has a text in each line.

    Raises:
        UserError: it cannot be read, is of another kind, or lacks a column.
    """
    import datasets

    file = at_home(source.path)
    suffix = file.suffix.lower()
    with loading(source.key, source.path):
        if suffix in _COLUMNS[:2] and len(columns) == 1:
            return datasets.Dataset.from_dict({columns[0]: [words for words, _ in _sentences(source, file)]})
        if suffix in _COLUMNS and len(columns) == 1:
            lines = [line.decode().rstrip("\r\n") for _, line in checked_lines(source, file, longest=None)]
            return datasets.Dataset.from_dict({columns[0]: lines})
        if suffix in _COLUMNS:
            sentences = list(_sentences(source, file))
            words, tags = columns[:2]
            return datasets.Dataset.from_dict({words: [s[0] for s in sentences], tags: [s[1] for s in sentences]})
        if suffix not in _BUILDERS:
            known = ", ".join([*_BUILDERS, *_COLUMNS])
            raise source.error(f"its extension is {suffix or 'none'}", f"give a file of one of {known}")
        if suffix == ".json" and (nested := squad_rows(file)) is not None:
            rows = datasets.Dataset.from_list(nested)
            _check_columns(source, rows, columns)
            return rows
        # As texts: the library would guess the type of a column.
        csv = {
            "sep": "\t" if suffix == ".tsv" else ",",
            "converters": dict.fromkeys(columns, str),
            "keep_default_na": False,
        }
        options = csv if _BUILDERS[suffix] == "csv" else {}
        rows = load_rows(_BUILDERS[suffix], data_files=str(file), scratch=scratch, **options)["train"]
    _check_columns(source, rows, columns)
    return rows


def _check_columns(source: Source, rows: Any, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in rows.column_names:
            raise source.error(f"has no column {column}", f"its columns: {', '.join(rows.column_names)}")


def _sentences(source: Source, file: Path) -> Iterator[tuple[list[str], list[str]]]:
    """(words, tags) of each sentence: the first and the last column of its lines."""
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        parts = line.split()
        if not words and _COMMENT.match(line):
            continue
        if not parts or parts[0] == "-DOCSTART-":
            if words:
                yield words, tags
            words, tags = [], []
        elif len(parts) < 2:
            raise source.error(
                f"line {number} holds one column ({parts[0]:.40})", "give a word and its tag in each line"
            )
        else:
            words.append(parts[0])
            tags.append(parts[-1])
    if words:
        yield words, tags
