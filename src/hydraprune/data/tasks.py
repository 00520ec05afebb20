"""Built-in tasks: data sets of the hub (GLUE), files of the user, and a generated toy language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.data import toy
from hydraprune.data.columns import ColumnReader, label_indices, normalized_label
from hydraprune.data.examples import SCORE, Examples, Labels, TaskData
from hydraprune.data.metrics import Metric
from hydraprune.data.readers.files import DataFile, open_data_file
from hydraprune.data.readers.folders import data_files, load_splits
from hydraprune.data.readers.memory_limits import Volume, check_memory
from hydraprune.data.readers.rows import iter_values, scratch_folder, split_off, subset
from hydraprune.data.readers.source import Source
from hydraprune.data.summary import DataSummary, SplitSummary, examples_digest, file_digests
from hydraprune.data.task_checks import as_tuple, check_columns, check_common, check_share, freeze_lists
from hydraprune.errors import UserError
from hydraprune.utils.digests import folder_digest
from hydraprune.utils.hub_access import is_local, local_or_id

MOST_CLASSES = 1000
MOST_TOY_EXAMPLES = 1_000_000
_SCORES_CURE = "for scores use task.regression=true task.metrics=[pearson]"


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
        check_common(self, self.labels is None, self.max_train_examples)
        check_columns(self.text, self.labels)
        if self.validation_share is not None:
            check_share(self.validation_share, ", or null to evaluate on task.validation")
        if not self.validation:
            raise UserError("name at least one split to evaluate on", key="task.validation", value="[]")

    def load(self) -> TaskData:
        """Read and check every split.

        Raises:
            UserError: the data set cannot be found or reached, or a column, label or split is wrong.
        """
        source = Source("task.path", self.path)
        with scratch_folder() as scratch:
            splits = load_splits(source, self.subset, self.revision, scratch)
            for split in (self.train, *self.validation):
                if split not in splits:
                    raise source.error(f"has no split {split}; it has {', '.join(splits)}")
            labels = SCORE if self.labels is None else Labels(as_tuple(self.labels))
            self._check_class_order(splits[self.train], labels)
            indices = None if labels.regression else label_indices(labels.names)
            reader = ColumnReader(source, as_tuple(self.text), self.label, indices)
            train, evaluations = splits[self.train], {split: splits[split] for split in self.validation}
            volume = reader.check(train, f"split {self.train}")
            if self.validation_share is not None:
                train, evaluated = split_off(train, self.validation_share)
                evaluations = {f"{self.train}, set apart": evaluated}
                volumes = [volume.part(len(evaluated))]
            else:
                volumes = [reader.check(rows, f"split {split}") for split, rows in evaluations.items()]
            train = subset(train, self.max_train_examples)
            kept = [volume.part(len(train)), *volumes]
            check_memory(source, kept, len(reader.text), self.max_length, volume.rows)
            examples = {split: reader.examples(rows) for split, rows in evaluations.items()}
            apart = 0 if self.validation_share is None else len(evaluated)
            return _task_data(reader.examples(train), examples, labels, _left_out(volume.rows, apart, len(train)))

    def digests(self) -> dict[str, str]:
        """The folder, as the config names it -> SHA-256 of its data files; empty for a data set of the hub."""
        if not is_local(self.path):
            return {}
        folder = Path(local_or_id(self.path, "task.path"))
        return {self.path: folder_digest(data_files(folder, self.subset), folder)}

    def _check_class_order(self, rows: Any, labels: Labels) -> None:
        """Refuse `labels` in another order than the names that the data set itself gives its numbers."""
        names = getattr(rows.features.get(self.label), "names", None)
        if names is not None and sorted(names) == sorted(labels.names) and tuple(names) != labels.names:
            reason = f"task.path={self.path} has them in the order {names}"
            raise UserError(reason, key="task.labels", value=list(labels.names))


@dataclass(frozen=True)
class FileTask:
    """A csv, json or parquet file of the user.

    Args:
        path: the training file.
        validation_path: the evaluation file; None to evaluate on a `validation_share` of the
            training file, the same for every seed.
        labels: class names in the order of their numbers; None for the values that occur, sorted.
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
        check_common(self, self.regression, self.max_train_examples)
        check_columns(self.text, self.labels)
        check_share(self.validation_share)

    def load(self) -> TaskData:
        """Read and check the files.

        Raises:
            UserError: a file is missing or unreadable, or a column or label is wrong.
        """
        text = as_tuple(self.text)
        files = self._files()
        self._check_memory([file.estimate(text) for file in files])
        for file in files:
            file.check((*text, self.label))
        with scratch_folder() as scratch:
            tables = [file.rows(scratch) for file in files]
            labels, indices = self._labels(tables)
            readers = [ColumnReader(file.source, text, self.label, indices) for file in files]
            self._check_memory([reader.check(rows, "the file") for reader, rows in zip(readers, tables, strict=True)])
            read = len(tables[0])
            if self.validation_path is None:
                tables = [*split_off(tables[0], self.validation_share, ", or task.validation_path")]
            train, validation = subset(tables[0], self.max_train_examples), tables[1]
            apart = len(validation) if self.validation_path is None else 0
            left_out = _left_out(read, apart, len(train))
            examples = {"validation": readers[-1].examples(validation)}
            return _task_data(readers[0].examples(train), examples, labels, left_out, self.digests())

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

    def _labels(self, tables: list[Any]) -> tuple[Labels, dict[int | str, int] | None]:
        """(labels, value in the label column -> output of the head; None for scores)."""
        if self.regression:
            return SCORE, None
        if self.labels is not None:
            return Labels(as_tuple(self.labels)), label_indices(as_tuple(self.labels))
        columns = [rows for rows in tables if self.label in rows.column_names]
        found = {normalized_label(value) for rows in columns for value in iter_values(rows, self.label)}
        if len(found) > MOST_CLASSES:
            raise self._label_error(f"{len(found)} different values are too many classes", _SCORES_CURE)
        if self.label in tables[0].column_names and found <= {None}:
            reason = f"task.path={self.path} holds neither whole numbers nor names in it"
            raise self._label_error(reason, _SCORES_CURE)
        if both := sorted(v for v in found if isinstance(v, str) and v.lstrip("-").isdigit() and int(v) in found):
            raise self._label_error(
                f"{both[0]} occurs as a number and as a text",
                "write every label one way (one empty label turns all numbers of a csv into texts)",
            )
        classes = sorted((v for v in found if v is not None), key=lambda v: (isinstance(v, str), v))
        return Labels(tuple(map(str, classes))), {value: index for index, value in enumerate(classes)}

    def _label_error(self, reason: str, cure: str) -> UserError:
        return UserError(reason, key="task.label", value=self.label, cure=cure)


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

    metrics = ("accuracy",)

    def __post_init__(self) -> None:
        check_common(self, False, self.max_train_examples)
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
        left_out = _left_out(len(train), 0, len(kept))
        labels = Labels(("negative", "positive"))
        return _task_data(_examples(kept), {"validation": _examples(evaluation)}, labels, left_out)


def _examples(pairs: Sequence[tuple[str, int]]) -> Examples:
    return Examples([(text,) for text, _ in pairs], [label for _, label in pairs])


def _left_out(read: int, apart: int, used: int) -> dict[str, int]:
    """Reason -> training rows that were read and are not used.

    Args:
        read: rows of the training file or split.
        apart: of these, set apart for evaluation.
        used: training examples.
    """
    return {"set apart for evaluation": apart, "task.max_train_examples": read - apart - used}


def _task_data(
    train: Examples,
    evaluations: dict[str, Examples],
    labels: Labels,
    left_out: dict[str, int],
    digests: dict[str, str] | None = None,
) -> TaskData:
    """The examples with their summary; `left_out` of the training rows, `digests` of the files that they come from."""
    names = None if labels.regression else labels.names
    splits = {"train": SplitSummary.of(train.texts, train.labels, names, left_out)}
    for name, examples in evaluations.items():
        splits[name] = SplitSummary.of(examples.texts, examples.labels, names)
    if digests is None:
        digests = {name: examples_digest(e.texts, e.labels) for name, e in {"train": train, **evaluations}.items()}
    return TaskData(train, evaluations, labels, DataSummary(splits, digests))
