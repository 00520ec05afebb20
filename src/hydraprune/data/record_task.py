"""A task read from records: rows of a file, or of a data set with splits, each checked and made into an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.metrics import Metric
from hydraprune.data.readers.records import is_file, load_records, read_records
from hydraprune.data.readers.rows import scratch_folder, split_off, subset
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Table
from hydraprune.data.summary import file_digests
from hydraprune.data.task_checks import as_tuple, check_common, check_share, freeze_lists
from hydraprune.data.task_data import left_out_of, task_data
from hydraprune.errors import UserError
from hydraprune.utils.hub_access import at_home


@dataclass(frozen=True, kw_only=True)
class RecordTask(ABC):
    """What tasks over records share; a subclass says which columns it needs and what an example is.

    Args:
        name: the name on the command line; names folders and rows of tables.
        path: hub id, folder, or file of the user.
        labels: names of the classes, in the order of their numbers; None for those that the data has.
        metrics: the first one is the headline.
        max_length: most tokens of an example, special tokens included; longer ones are truncated.
        train, validation: names of splits, of a data set that has some.
        validation_path: the evaluation file; None to evaluate on a `validation_share` of the training file.
        (the others as in `HubTask` and `FileTask`)

    Raises:
        UserError: a value is out of range.
    """

    name: str
    path: str
    labels: Sequence[str] | None
    metrics: Sequence[str | Metric]
    max_length: int
    train: str = "train"
    validation: Sequence[str] = ("validation",)
    validation_path: str | None = None
    validation_share: float = 0.1
    max_train_examples: int | None = None
    subset: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        freeze_lists(self, "metrics", "validation", "labels")
        check_common(self, self.head(()), self.max_train_examples)
        check_share(self.validation_share)
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise UserError("names a class twice", key="task.labels", value=list(self.labels))

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """The columns that are used."""

    @abstractmethod
    def head(self, names: tuple[str, ...]) -> Labels:
        """What a model predicts, given the names of the classes."""

    @property
    @abstractmethod
    def class_column(self) -> str | None:
        """The column of lists that holds the classes; None where there is none."""

    @abstractmethod
    def names(self, rows: Any) -> tuple[str, ...]:
        """The names of the classes, from the training rows (a `datasets.Dataset`)."""

    @property
    @abstractmethod
    def label_columns(self) -> Sequence[str]:
        """Those of the columns that hold labels, which `read_texts` does without."""

    @abstractmethod
    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The texts of a row's example; empty if it has none.

        Raises:
            ValueError: what is wrong with the row; a second argument is the cure.
        """

    @abstractmethod
    def label_of(self, row: Mapping[str, Any], texts: tuple[str, ...], numbers: Mapping[str | int, int]) -> Any:
        """The label of a row whose example has these texts.

        Args:
            numbers: name of a class, or number that the data has for it -> its number.

        Raises:
            ValueError: see `texts`.
        """

    def load(self) -> TaskData:
        """Read and check every split.

        Raises:
            UserError: the data cannot be found or read, or a row is wrong: naming the row.
        """
        with scratch_folder() as scratch:
            splits = self._splits(scratch)
            _, first, whole = splits[0]
            names, rows = self.names(whole), len(whole)
            # Before any are drawn: an error names a row of the file.
            read = {name: self._examples(source, table, names, name != first) for source, name, table in splits}
        everything, apart = read.pop(first), 0
        places = list(range(len(everything)))
        if not read:
            kept, rest = self.divided(places)
            places, apart = list(kept), len(rest)
            read = {"validation": _chosen(everything, rest)}
        used = _chosen(everything, self.drawn(places, self.max_train_examples))
        left_out = {"without an example": rows - len(everything), **left_out_of(len(everything), apart, len(used))}
        return task_data(used, read, self.head(names), left_out, digests=self.digests() or None)

    def divided(self, places: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """(examples to train on, `validation_share` of them to evaluate on): the same at random for every seed.

        Raises:
            UserError: one of the two would be empty.
        """
        kept, rest = split_off(_table(places), self.validation_share, ", or task.validation_path")
        return kept.rows["place"], rest.rows["place"]

    def drawn(self, places: Sequence[int], most: int | None) -> Sequence[int]:
        """At most so many of the training examples; None: all."""
        found: Sequence[int] = subset(_table(places), most).rows["place"]
        return found

    def digests(self) -> dict[str, str]:
        """File, as the config names it -> SHA-256 of its bytes; empty for a data set with splits."""
        if not is_file(self.path):
            return {}
        paths = [self.path, *([] if self.validation_path is None else [self.validation_path])]
        return file_digests({path: at_home(path) for path in paths})

    def _splits(self, scratch: str) -> list[tuple[Source, str, Any]]:
        """(source, name, rows) of the training set and of the evaluation sets; of the first alone if it is split."""
        source = Source("task.path", self.path)
        if not is_file(self.path) and self.validation_path is not None:
            raise UserError(
                "goes with a file, and task.path is a folder or data set with splits",
                key="task.validation_path",
                value=self.validation_path,
                cure="leave it out: task.validation names its splits",
            )
        if not is_file(self.path):
            names = (self.train, *self.validation)
            found = load_records(source, self.subset, self.revision, names, self.columns, scratch)
            return [(source.within(f"split {name}"), name, found[name]) for name in names]
        sets = [(source, "train", read_records(source, self.columns, scratch))]
        if self.validation_path is not None:
            other = Source("task.validation_path", self.validation_path)
            if not is_file(self.validation_path):
                raise other.error("no such file")
            sets.append((other, "validation", read_records(other, self.columns, scratch)))
        return sets

    def _examples(self, source: Source, rows: Any, names: tuple[str, ...], keeps_empty: bool) -> Examples:
        numbers = _numbers(names, own_names(rows, self.class_column) if self.class_column else None)
        return self._each(
            source, rows, self.columns, keeps_empty, lambda row, texts: self.label_of(row, texts, numbers)
        )

    def _each(
        self, source: Source, rows: Any, columns: Sequence[str], keeps_empty: bool, label: Callable[..., Any]
    ) -> Examples:
        """The examples of rows.

        Args:
            keeps_empty: whether a row without texts is an example too, so that examples go by the numbers of rows.
            label: makes the label of a row and its texts.
        """
        texts, labels = [], []
        for place, row in enumerate(rows.select_columns(list(dict.fromkeys(columns))), start=1):
            try:
                found = self.texts(row)
                if found or keeps_empty:
                    labels.append(label(row, found))
                    texts.append(found)
            except ValueError as error:
                reason, *cure = (str(part) for part in error.args)
                raise source.error(f"row {place}: {reason}", cure[0] if cure else None) from None
        if not any(texts):
            raise source.error("no row has an example")
        return Examples(texts, labels)

    def head_of(self, names: tuple[str, ...], examples: Examples) -> Labels:
        """What a model with these outputs predicts for some examples."""
        return self.head(names if self.labels is None else as_tuple(self.labels))

    def read_texts(self, split: str | None, file: str | None) -> Examples:
        """The texts of a split, or of another file, without their labels: each label is None.

        Raises:
            UserError: the data cannot be found or read, or a row is wrong.
        """
        columns = [column for column in self.columns if column not in self.label_columns]
        with scratch_folder() as scratch:
            if file is not None:
                source = Source("--file", file)
                rows = read_records(source, columns, scratch)
            else:
                source = Source("task.path", self.path)
                if is_file(self.path):
                    reason, cure = "task.path is a file, which has no splits", "give the file: --file texts.jsonl"
                    raise UserError(reason, key="--split", value=split, cure=cure)
                rows = load_records(source, self.subset, self.revision, [str(split)], columns, scratch)[str(split)]
                source = source.within(f"split {split}")
            return self._each(source, rows, columns, True, lambda row, texts: None)


def _numbers(names: Sequence[str], own: Sequence[str] | None) -> dict[str | int, int]:
    """Name, or number in the data -> number. Numbers that the data names mean these names, in whatever order."""
    by_name: dict[str | int, int] = {name: number for number, name in enumerate(names)}
    same = own is not None and sorted(own) == sorted(names)
    return by_name | {place: by_name[own[place]] if same and own else place for place in range(len(names))}


def number_of(value: Any, numbers: Mapping[str | int, int]) -> int:
    """The number of a class that a row names, or gives as a number.

    Raises:
        ValueError: it is none of them.
    """
    number = numbers.get(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if number is None:
        known = ", ".join([name for name in numbers if isinstance(name, str)][:8])
        raise ValueError(f"{value!r} is none of task.labels ({known})", "name it there")
    return number


def own_names(rows: Any, column: str) -> tuple[str, ...] | None:
    """The names that the type of a column of lists gives to its numbers; None if it gives none."""
    feature = rows.features[column]
    named = getattr(getattr(feature, "feature", feature), "names", None)
    return tuple(named) if named else None


def names_in(rows: Any, column: str, first: str | None = None) -> tuple[str, ...]:
    """The names of the classes in a column of lists: those of its type, else the texts that occur, sorted.

    Args:
        first: the name that comes before the others.

    Raises:
        UserError: it holds numbers without names.
    """
    if named := own_names(rows, column):
        return named
    for place, values in enumerate(rows[column], start=1):
        if isinstance(values, list) and None in values:
            reason = f"row {place}: {column} holds null for value {values.index(None) + 1} of {len(values)}"
            raise UserError(reason, key="task.path", cure="give each a class, or leave the row out")
    found = {value for values in rows[column] for value in (values if isinstance(values, list) else [])}
    if not all(isinstance(value, str) for value in found):
        reason = f"column {column} holds numbers, and nothing names them"
        raise UserError(
            reason, key="task.labels", value=None, cure="give their names in their order: task.labels=[A,B]"
        )
    return tuple(sorted(found, key=lambda name: (name != first, name)))


def _table(places: Sequence[int]) -> Table:
    """Numbers of examples as a table, from which some are drawn."""
    import datasets

    return Table(datasets.Dataset.from_dict({"place": list(places)}))


def _chosen(examples: Examples, places: Sequence[int]) -> Examples:
    return Examples([examples.texts[place] for place in places], [examples.labels[place] for place in places])
