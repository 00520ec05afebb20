"""Built-in tasks: data sets of the hub (GLUE), files of the user, and a generated toy language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hydraprune.data import toy
from hydraprune.data.class_search import find_classes
from hydraprune.data.classes import Classes, Meaning, given_meaning, named_classes
from hydraprune.data.columns import ColumnReader
from hydraprune.data.examples import SCORE, Examples, Labels, TaskData
from hydraprune.data.labels import CLASSES
from hydraprune.data.metrics import Metric
from hydraprune.data.readers.files import DataFile, open_data_file
from hydraprune.data.readers.folders import data_files, load_splits
from hydraprune.data.readers.memory_limits import Volume, check_memory
from hydraprune.data.readers.rows import scratch_folder, split_off, subset
from hydraprune.data.readers.source import Source
from hydraprune.data.readers.table import Columns, Table
from hydraprune.data.readers.text_columns import check_texts
from hydraprune.data.summary import file_digests
from hydraprune.data.task_checks import as_tuple, check_columns, check_common, check_share, freeze_lists
from hydraprune.data.task_data import left_out_of, task_data
from hydraprune.errors import UserError
from hydraprune.utils.digests import folder_digest
from hydraprune.utils.hub_access import is_local, local_or_id

MOST_TOY_EXAMPLES = 1_000_000


@dataclass(frozen=True)
class HubTask:
    """A data set of the hub, or a local folder in its layout or made by `save_to_disk`.

    Args:
        name: the name on the command line; names folders and rows of tables.
        path, revision, subset: as `datasets.load_dataset` takes them.
        text: one or two text columns.
        label: column of numbers 0..n-1, of class names, or of scores.
        labels: class names in the order of their numbers; None for scores (regression).
        metrics: the first one is the headline.
        train, validation: names of splits; the first validation split gives the headline.
        max_length: most tokens of an example, special tokens included.
        max_train_examples: size of a fixed random subset; None for all.
        validation_share: evaluate on this share of the training split alone, the same for every seed,
            to choose a recipe without using `validation`; None: evaluate on `validation`.

    Raises:
        UserError: a value is out of range.
    """

    name: str
    path: str
    text: Sequence[str]
    label: str
    labels: Sequence[str] | None
    metrics: Sequence[str | Metric]
    train: str
    validation: Sequence[str]
    max_length: int
    max_train_examples: int | None = None
    subset: str | None = None
    revision: str | None = None
    validation_share: float | None = None

    def __post_init__(self) -> None:
        freeze_lists(self, "text", "metrics", "validation", "labels")
        check_common(self, SCORE if self.labels is None else CLASSES, self.max_train_examples)
        check_columns(self.text, self.label, self.labels)
        if self.validation_share is not None:
            check_share(self.validation_share, ", or null to evaluate on task.validation")
        if not self.validation:
            raise UserError("name at least one split to evaluate on", key="task.validation", value="[]")

    def load(self) -> TaskData:
        """Read and check every split.

        Raises:
            UserError: the data set cannot be found or reached, or a column, label or split is wrong.
        """
        source, columns = Source("task.path", self.path), Columns(as_tuple(self.text), self.label)
        labels = SCORE if self.labels is None else Labels(as_tuple(self.labels))
        classes = None if labels.regression else named_classes(labels.names)
        with scratch_folder() as scratch:
            names = (self.train, *self.validation)
            splits = load_splits(source, self.subset, self.revision, names, columns, scratch)

            def reader(split: str) -> ColumnReader:
                meaning = None if classes is None else given_meaning(splits[split], classes)
                return ColumnReader(source, columns, classes, meaning)

            train, volume = splits[self.train], reader(self.train).check(splits[self.train], f"split {self.train}")
            if self.validation_share is not None:
                train, evaluated = split_off(train, self.validation_share)
                evaluations = {f"{self.train}, set apart": (reader(self.train), evaluated)}
                volumes = [volume.part(len(evaluated))]
            else:
                evaluations = {split: (reader(split), splits[split]) for split in self.validation}
                volumes = [read.check(table, f"split {split}") for split, (read, table) in evaluations.items()]
            train = subset(train, self.max_train_examples)
            check_memory(source, [volume.part(len(train)), *volumes], len(columns.text), self.max_length, volume.rows)
            examples = {split: read.examples(table) for split, (read, table) in evaluations.items()}
            multiline = {
                "train": train.multiline,
                **{split: table.multiline for split, (_, table) in evaluations.items()},
            }
            apart = 0 if self.validation_share is None else len(evaluated)
            left_out = left_out_of(volume.rows, apart, len(train))
            return task_data(reader(self.train).examples(train), examples, labels, left_out, multiline=multiline)

    def head_of(self, names: tuple[str, ...], examples: Examples) -> Labels:
        """What a model with these outputs predicts for some examples."""
        return SCORE if self.labels is None else Labels(as_tuple(self.labels))

    def read_texts(self, split: str | None, file: str | None) -> Examples:
        """The texts of a split, or of a file, without their labels: each label is None.

        Raises:
            UserError: the data cannot be found or reached, or a text is none.
        """
        columns = _of_texts(self.text)
        with scratch_folder() as scratch:
            if file is not None:
                return _texts_of_file(file, columns, scratch)
            source, name = Source("task.path", self.path), str(split)
            table = load_splits(source, self.subset, self.revision, (name,), columns, scratch)[name]
            return _texts_of(source, table, columns, f"split {name}")

    def digests(self) -> dict[str, str]:
        """The folder, as the config names it -> SHA-256 of its data files; empty for a data set of the hub."""
        if not is_local(self.path):
            return {}
        folder = Path(local_or_id(self.path, "task.path"))
        files = data_files(folder, self.subset)
        return {self.path: folder_digest(files, folder)} if files else {}


def _of_texts(text: Sequence[str]) -> Columns:
    """Text columns alone."""
    return Columns(as_tuple(text), as_tuple(text)[0])


def _texts_of(source: Source, table: Table, columns: Columns, split: str) -> Examples:
    for column in columns.text:
        check_texts(table.rows, column, source, split)
    texts = list(zip(*(table.rows[column] for column in columns.text), strict=True))
    if not texts:
        raise source.error(f"{split} is empty", "give data with at least one example")
    return Examples(texts, [None] * len(texts))


def _texts_of_file(path: str, columns: Columns, scratch: str) -> Examples:
    file = open_data_file("--file", path)
    return _texts_of(file.source, file.table(columns, scratch), columns, "the file")


@dataclass(frozen=True)
class FileTask:
    """A csv, tsv, json or parquet file of the user.

    Args:
        path: the training file.
        validation_path: the evaluation file; None to evaluate on a `validation_share` of the
            training file, the same for every seed.
        labels: class names in the order of their numbers; None for the values that occur, sorted (see
            `hydraprune.data.classes`).
        regression: the label is a score.
        (the others as in `HubTask`)

    Raises:
        UserError: a value is out of range.
    """

    name: str
    path: str
    validation_path: str | None
    validation_share: float
    text: Sequence[str]
    label: str
    labels: Sequence[str] | None
    regression: bool
    metrics: Sequence[str | Metric]
    max_length: int
    max_train_examples: int | None = None

    def __post_init__(self) -> None:
        freeze_lists(self, "text", "metrics", "labels")
        check_common(self, SCORE if self.regression else CLASSES, self.max_train_examples)
        check_columns(self.text, self.label, self.labels)
        check_share(self.validation_share)

    def load(self) -> TaskData:
        """Read and check the files.

        Raises:
            UserError: a file is missing or unreadable, or a column or label is wrong.
        """
        columns = Columns(as_tuple(self.text), self.label)
        files, digests = self._files(), self.digests()
        self._check_memory([file.estimate(columns.text) for file in files])
        with scratch_folder() as scratch:
            tables = [file.table(columns, scratch) for file in files]
            classes, meanings = self._classes(tables)
            readers = [
                ColumnReader(file.source, columns, classes, meaning)
                for file, meaning in zip(files, meanings, strict=True)
            ]
            self._check_memory([reader.check(rows, "the file") for reader, rows in zip(readers, tables, strict=True)])
            read = len(tables[0])
            if self.validation_path is None:
                tables = [*split_off(tables[0], self.validation_share, ", or task.validation_path")]
            train, validation = subset(tables[0], self.max_train_examples), tables[1]
            apart = len(validation) if self.validation_path is None else 0
            labels = SCORE if classes is None else Labels(classes.names)
            examples = {"validation": readers[-1].examples(validation)}
            left_out = left_out_of(read, apart, len(train))
            multiline = {"train": train.multiline, "validation": validation.multiline}
            return task_data(readers[0].examples(train), examples, labels, left_out, multiline, digests)

    def head_of(self, names: tuple[str, ...], examples: Examples) -> Labels:
        """What a model with these outputs predicts for some examples."""
        return SCORE if self.regression else Labels(names if self.labels is None else as_tuple(self.labels))

    def read_texts(self, split: str | None, file: str | None) -> Examples:
        """The texts of a file without their labels: each label is None.

        Raises:
            UserError: no file is given, it is missing or unreadable, or a text is none.
        """
        if file is None:
            reason, cure = "a task of files has no splits", "give the file: --file texts.csv"
            raise UserError(reason, key="--split", value=split, cure=cure)
        with scratch_folder() as scratch:
            return _texts_of_file(file, _of_texts(self.text), scratch)

    def digests(self) -> dict[str, str]:
        """File, as the config names it -> SHA-256 of its bytes. Nothing is parsed.

        Raises:
            UserError: a file is missing or unreadable.
        """
        return file_digests({file.source.path: file.path for file in self._files()})

    def _files(self) -> list[DataFile]:
        paths = {"task.path": self.path}
        if self.validation_path is not None:
            paths["task.validation_path"] = self.validation_path
        return [open_data_file(key, path) for key, path in paths.items()]

    def _check_memory(self, volumes: Sequence[Volume | None]) -> None:
        """Refuse files of these sizes if the examples kept of them would not fit into memory."""
        train, validation = volumes[0], volumes[-1]
        if train is None or validation is None:
            return
        rest = train.rows
        if self.validation_path is None:
            validation = train.part(self.validation_share * train.rows)
            rest -= validation.rows
        kept = [train.part(min(rest, self.max_train_examples or rest)), validation]
        check_memory(Source("task.path", self.path), kept, len(self.text), self.max_length, train.rows)

    def _classes(self, tables: Sequence[Table]) -> tuple[Classes | None, list[Meaning | None]]:
        """(the classes, and what a label of every table is among them; None for scores)."""
        if self.regression:
            return None, [None] * len(tables)
        if self.labels is not None:
            classes = named_classes(as_tuple(self.labels))
            return classes, [given_meaning(table, classes) for table in tables]
        return find_classes(Source("task.path", self.path), self.label, tables)


@dataclass(frozen=True)
class ToyTask:
    """Sentences of a generated language, labelled by their meaning; see `hydraprune.data.toy`.

    Raises:
        UserError: a value is out of range.
    """

    name: str
    train_examples: int
    evaluation_examples: int
    data_seed: int
    max_length: int
    max_train_examples: int | None = None

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    head: ClassVar[Labels] = Labels(("negative", "positive"))

    def __post_init__(self) -> None:
        check_common(self, self.head, self.max_train_examples)
        for field in ("train_examples", "evaluation_examples"):
            value = getattr(self, field)
            if value < 1:
                raise UserError("must be at least 1", key=f"task.{field}", value=value)
            if value > MOST_TOY_EXAMPLES:
                reason = f"must be at most {MOST_TOY_EXAMPLES}, since all are held in memory"
                raise UserError(reason, key=f"task.{field}", value=value)

    def load(self) -> TaskData:
        """Generate both sets."""
        train, evaluation = toy.generate(self.train_examples, self.evaluation_examples, self.data_seed)
        kept = train[: self.max_train_examples]
        left_out = left_out_of(len(train), 0, len(kept))
        return task_data(self._examples(kept), {"validation": self._examples(evaluation)}, self.head, left_out)

    def _examples(self, pairs: Sequence[tuple[str, int]]) -> Examples:
        """The examples of (sentence, label) pairs."""
        return Examples([(text,) for text, _ in pairs], [label for _, label in pairs])
