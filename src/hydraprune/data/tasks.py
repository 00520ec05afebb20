"""What is learned, and on which examples? GLUE by name, your own files, the toy language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data import toy
from hydraprune.data.examples import (
    SCORE,
    Examples,
    Labels,
    Reader,
    TaskData,
    places_of,
    plain_label,
    scratch_folder,
    set_apart,
    subset,
    values,
)
from hydraprune.data.metrics import BINARY, CLASSIFICATION, REGRESSION
from hydraprune.data.readers.files import file_at
from hydraprune.data.readers.folders import load_splits
from hydraprune.data.readers.memory_limits import Volume, check_memory
from hydraprune.errors import UserError
from hydraprune.sparsity.layers import words

MOST_CLASSES = 1000
MOST_TOY = 1_000_000


@dataclass(frozen=True)
class HubTask:
    """A data set of the hub, or a local folder laid out as one (or made by `save_to_disk`).

    Args:
        name: the word on the command line; names folders and rows.
        path, revision, subset: what `datasets.load_dataset` is given.
        text: one or two columns of text.
        label: column of numbers 0..n-1, of class names, or of scores.
        labels: class names in the order of the numbers; None for scores (regression).
        metrics: of which the first is the headline.
        train, validation: names of splits; the first validation split gives the headline.
        max_length: tokens, the special ones included.
        max_train_examples: a fixed random subset of this size; None for all.
        validation_share: set this share of the training split apart, the same part for every seed, and
            evaluate on it alone: for choosing a recipe without a look at `validation`. None: do not.
    """

    name: str
    path: str
    text: Sequence[str]
    label: str
    labels: Sequence[str] | None
    metrics: Sequence[str]
    train: str
    validation: Sequence[str]
    max_length: int
    max_train_examples: int | None = None
    subset: str | None = None
    revision: str | None = None
    validation_share: float | None = None

    def __post_init__(self) -> None:
        _set_words(self, "text", "metrics", "validation", "labels")
        _check_common(self, regression=self.labels is None)
        if self.validation_share is not None:
            _check_share(self.validation_share, ", or null to evaluate on task.validation")
        if not self.validation:
            raise UserError("task.validation=[]: name at least one split to evaluate on")

    def load(self) -> TaskData:
        """Read and check every split.

        Raises:
            UserError: the data set cannot be found or reached, or a column, label or split is wrong.
        """
        where = f"task.path={self.path}"
        with scratch_folder() as scratch:
            splits = load_splits(self.path, self.subset, self.revision, scratch)
            for split in (self.train, *self.validation):
                if split not in splits:
                    raise UserError(f"{where}: has no split {split}; it has {', '.join(splits)}")
            labels = SCORE if self.labels is None else Labels(words(self.labels))
            self._check_order(splits[self.train], labels)
            reader = Reader(where, words(self.text), self.label, None if labels.regression else places_of(labels.names))
            train, evaluations = splits[self.train], {split: splits[split] for split in self.validation}
            volume = reader.check(train, f"split {self.train}")
            if self.validation_share is not None:
                train, apart = set_apart(train, self.validation_share)
                evaluations = {f"{self.train}, set apart": apart}
                volumes = [volume.part(len(apart))]
            else:
                volumes = [reader.check(rows, f"split {split}") for split, rows in evaluations.items()]
            train = subset(train, self.max_train_examples)
            kept = [volume.part(len(train)), *volumes]
            check_memory(where, kept, len(reader.text), self.max_length, volume.rows)
            return TaskData(
                reader.examples(train), {split: reader.examples(rows) for split, rows in evaluations.items()}, labels
            )

    def _check_order(self, rows: Any, labels: Labels) -> None:
        """The data may name its numbers itself, in another order than ours."""
        theirs = getattr(rows.features.get(self.label), "names", None)
        if theirs is not None and sorted(theirs) == sorted(labels.names) and tuple(theirs) != labels.names:
            raise UserError(f"task.labels={list(labels.names)}: task.path={self.path} has them in the order {theirs}")


@dataclass(frozen=True)
class FileTask:
    """Your own csv, json or parquet file.

    Args:
        path: the training file.
        validation_path: the evaluation file; None to set `validation_share` of the training file
            apart, the same part for every seed.
        labels: class names in the order of their numbers; None for the values that occur, sorted.
        regression: the label is a score.
        (the others as in `HubTask`)
    """

    name: str
    path: str
    validation_path: str | None
    validation_share: float
    text: Sequence[str]
    label: str
    labels: Sequence[str] | None
    regression: bool
    metrics: Sequence[str]
    max_length: int
    max_train_examples: int | None = None

    def __post_init__(self) -> None:
        _set_words(self, "text", "metrics", "labels")
        _check_common(self, regression=self.regression)
        _check_share(self.validation_share)

    def load(self) -> TaskData:
        """Read and check the files.

        Raises:
            UserError: a file is missing or unreadable, or a column or label is wrong.
        """
        text = words(self.text)
        paths = {"task.path": self.path}
        if self.validation_path is not None:
            paths["task.validation_path"] = self.validation_path
        files = [file_at(key, path) for key, path in paths.items()]
        self._check_memory([file.estimated(text) for file in files])
        for file in files:
            file.check((*text, self.label))
        with scratch_folder() as scratch:
            tables = [file.rows(scratch) for file in files]
            labels, places = self._labels(tables)
            readers = [Reader(file.where, text, self.label, places) for file in files]
            self._check_memory([reader.check(rows, "the file") for reader, rows in zip(readers, tables, strict=True)])
            if self.validation_path is None:
                tables = [*set_apart(tables[0], self.validation_share, ", or task.validation_path")]
            train, validation = subset(tables[0], self.max_train_examples), tables[1]
            return TaskData(readers[0].examples(train), {"validation": readers[-1].examples(validation)}, labels)

    def _check_memory(self, volumes: Sequence[Volume | None]) -> None:
        """Refuse what would be kept of the files, each so large, when it would not fit."""
        train, validation = volumes[0], volumes[-1]
        if train is None or validation is None:
            return
        rest = train.rows
        if self.validation_path is None:
            validation = train.part(self.validation_share * train.rows)
            rest -= validation.rows
        kept = [train.part(min(rest, self.max_train_examples or rest)), validation]
        check_memory(f"task.path={self.path}", kept, len(self.text), self.max_length, train.rows)

    def _labels(self, tables: list[Any]) -> tuple[Labels, dict[int | str, int] | None]:
        if self.regression:
            return SCORE, None
        if self.labels is not None:
            return Labels(words(self.labels)), places_of(words(self.labels))
        found = {plain_label(v) for rows in tables if self.label in rows.column_names for v in values(rows, self.label)}
        if len(found) > MOST_CLASSES:
            raise UserError(
                f"task.label={self.label}: {len(found)} different values are too many classes; for scores say "
                f"task.regression=true task.metrics=[pearson]"
            )
        if self.label in tables[0].column_names and found <= {None}:
            raise UserError(
                f"task.label={self.label}: task.path={self.path} holds neither whole numbers nor names in it; for "
                f"scores say task.regression=true task.metrics=[pearson]"
            )
        if both := sorted(v for v in found if isinstance(v, str) and v.lstrip("-").isdigit() and int(v) in found):
            raise UserError(
                f"task.label={self.label}: {both[0]} stands there as a number and as a text; write every label "
                f"one way (one empty label makes texts of all numbers of a csv)"
            )
        classes = sorted((v for v in found if v is not None), key=lambda v: (isinstance(v, str), v))
        return Labels(tuple(map(str, classes))), {value: place for place, value in enumerate(classes)}


@dataclass(frozen=True)
class ToyTask:
    """Sentences of our own seeded grammar, labelled by meaning. See `hydraprune.data.toy`."""

    name: str
    train_examples: int
    evaluation_examples: int
    data_seed: int
    max_length: int
    max_train_examples: int | None = None

    metrics = ("accuracy",)

    def __post_init__(self) -> None:
        _check_common(self, regression=False)
        for key in ("train_examples", "evaluation_examples"):
            if getattr(self, key) < 1:
                raise UserError(f"task.{key}={getattr(self, key)}: must be at least 1")
            if getattr(self, key) > MOST_TOY:
                raise UserError(
                    f"task.{key}={getattr(self, key)}: must be at most {MOST_TOY}, since all are held in memory"
                )

    def load(self) -> TaskData:
        """Generate both sets."""
        train, evaluation = toy.generate(self.train_examples, self.evaluation_examples, self.data_seed)
        kept = train[: self.max_train_examples]
        return TaskData(_pairs(kept), {"validation": _pairs(evaluation)}, Labels(("negative", "positive")))


def check_metrics(metrics: Sequence[str], labels: Labels) -> None:
    """Refuse what cannot be learned or scored.

    Raises:
        UserError: a single class, or a metric of two classes for more of them.
    """
    if not labels.regression and labels.count < 2:
        raise UserError(f"task.label: the data has one class only ({', '.join(labels.names)}); give at least two")
    for metric in metrics:
        if metric in BINARY and labels.count != 2:
            raise UserError(f"task.metrics={metric}: is of two classes, and the task has {labels.count}; take f1_macro")


def _set_words(task: Any, *keys: str) -> None:
    """Lists of text as tuples, so that a task can be compared and remembered."""
    for key in keys:
        if getattr(task, key) is not None:
            object.__setattr__(task, key, words(getattr(task, key)))


def _check_share(share: object, otherwise: str = "") -> None:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share < 1.0:
        raise UserError(f"task.validation_share={share}: must be between 0 and 1{otherwise}")


def _check_common(task: Any, regression: bool) -> None:
    if task.max_length < 3:
        raise UserError(f"task.max_length={task.max_length}: must be at least 3 tokens")
    if task.max_train_examples is not None and task.max_train_examples < 1:
        raise UserError(f"task.max_train_examples={task.max_train_examples}: must be at least 1, or null for all")
    known = REGRESSION if regression else CLASSIFICATION
    for metric in task.metrics:
        if metric not in known:
            raise UserError(f"task.metrics={metric}: choose from {', '.join(known)}")
    if not task.metrics:
        raise UserError(f"task.metrics=[]: name at least one of {', '.join(known)}")
    if not 1 <= len(getattr(task, "text", "x")) <= 2:
        raise UserError(f"task.text={list(task.text)}: give one column of text, or two")
    names = getattr(task, "labels", None)
    if names is not None and len(set(names)) != len(names):
        raise UserError(f"task.labels={list(names)}: names a class twice")


def _pairs(pairs: Sequence[tuple[str, int]]) -> Examples:
    return Examples([(text,) for text, _ in pairs], [label for _, label in pairs])
