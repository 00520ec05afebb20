"""What is learned, and on which examples? GLUE by name, your own files, the toy language."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError
from hydraprune.hub import toy
from hydraprune.hub.metrics import CLASSIFICATION, REGRESSION
from hydraprune.hub.offline import is_local, loading, local_or_id

# The subset drawn by max_train_examples is part of the task, not of the run: every seed trains on the same one.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Labels:
    """What a head predicts: class names in the order of their numbers, or one score."""

    names: tuple[str, ...]
    regression: bool = False

    @property
    def count(self) -> int:
        """Outputs of the head."""
        return len(self.names)


@dataclass(frozen=True)
class Examples:
    """Texts (one or two per example) and their labels."""

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[float]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TaskData:
    """A task's examples: one training set, one or more evaluation sets by name, the first the main one."""

    train: Examples
    evaluations: Mapping[str, Examples]
    labels: Labels


def _check(max_length: int, max_train_examples: int | None, metrics: Sequence[str], regression: bool) -> None:
    if max_length < 3:
        raise UserError(f"task.max_length={max_length}: must be at least 3 tokens")
    if max_train_examples is not None and max_train_examples < 1:
        raise UserError(f"task.max_train_examples={max_train_examples}: must be at least 1, or null for all")
    known = REGRESSION if regression else CLASSIFICATION
    for metric in metrics:
        if metric not in known:
            raise UserError(f"task.metrics={metric}: choose from {', '.join(known)}")
    if not metrics:
        raise UserError(f"task.metrics=[]: name at least one of {', '.join(known)}")


@dataclass(frozen=True)
class HubTask:
    """A data set of the hub, or a local folder laid out as one (or made by `save_to_disk`).

    Args:
        name: the word on the command line; names folders and rows.
        path, revision, subset: what `datasets.load_dataset` is given.
        text: one or two columns of text.
        label: column of numbers 0..n-1, or of scores.
        labels: names in the order of the numbers; None for regression.
        metrics: of which the first is the headline.
        train, validation: names of splits; the first validation split gives the headline.
        max_length: tokens, the special ones included.
        max_train_examples: a fixed random subset of this size; None for all.
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

    def __post_init__(self) -> None:
        _check(self.max_length, self.max_train_examples, self.metrics, self.labels is None)

    def load(self) -> TaskData:
        """Read and check every split.

        Raises:
            UserError: the data set cannot be found or reached, or a column, label or split is wrong.
        """
        import datasets

        source = local_or_id(self.path, "task.path")
        with loading("task.path", self.path):
            if (Path(source) / "dataset_dict.json").exists():
                splits = datasets.load_from_disk(source)
            else:
                splits = _load(source, self.subset, revision=self.revision)
        for split in (self.train, *self.validation):
            if split not in splits:
                raise UserError(f"task.path={self.path}: has no split {split}; it has {', '.join(splits)}")
        names = None if self.labels is None else tuple(self.labels)
        reader = _Reader(f"task.path={self.path}", tuple(self.text), self.label, names, names is None)
        train = _subset(splits[self.train], self.max_train_examples)
        return TaskData(
            reader.examples(train, self.train),
            {split: reader.examples(splits[split], split) for split in self.validation},
            Labels(names or ("score",), names is None),
        )


_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


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
        _check(self.max_length, self.max_train_examples, self.metrics, self.regression)
        if not 0.0 < self.validation_share < 1.0:
            raise UserError(f"task.validation_share={self.validation_share}: must be between 0 and 1")

    def load(self) -> TaskData:
        """Read and check the files.

        Raises:
            UserError: a file is missing or unreadable, or a column or label is wrong.
        """
        train = self._read("task.path", self.path)
        if self.validation_path is not None:
            validation = self._read("task.validation_path", self.validation_path)
        else:
            if len(train) < 2:
                raise UserError(f"task.path={self.path}: {len(train)} examples cannot be split for validation")
            parts = train.train_test_split(test_size=self.validation_share, seed=SUBSET_SEED)
            train, validation = parts["train"], parts["test"]
        names = self._label_names(train)
        reader = _Reader(f"task.path={self.path}", tuple(self.text), self.label, names, self.regression)
        return TaskData(
            reader.examples(_subset(train, self.max_train_examples), "train"),
            {"validation": reader.examples(validation, "validation")},
            Labels(names or ("score",), self.regression),
        )

    def _read(self, key: str, path: str) -> Any:
        kind = _FORMATS.get(Path(path).suffix.lower())
        if kind is None:
            raise UserError(f"{key}={path}: must end in one of {', '.join(_FORMATS)}")
        if not Path(path).expanduser().is_file():
            raise UserError(f"{key}={path}: no such file")
        if Path(path).expanduser().stat().st_size == 0:
            raise UserError(f"{key}={path}: the file is empty")
        with loading(key, path if is_local(path) else f"./{path}"):
            try:
                return _load(kind, data_files=str(Path(path).expanduser()), split="train")
            except ValueError as error:
                if "corresponds to no data" in str(error):
                    raise UserError(f"{key}={path}: the file is empty; give at least one example") from None
                raise

    def _label_names(self, train: Any) -> tuple[str, ...] | None:
        if self.regression:
            return None
        if self.labels is not None:
            return tuple(self.labels)
        if self.label not in train.column_names:
            return ()
        values = {value for value in train[self.label] if value is not None}
        if all(isinstance(value, int) for value in values):
            return tuple(str(value) for value in range(max(values, default=-1) + 1))
        return tuple(sorted(map(str, values)))


@dataclass(frozen=True)
class ToyTask:
    """Sentences of our own seeded grammar, labelled by meaning. See `hydraprune.hub.toy`."""

    name: str
    train_examples: int
    evaluation_examples: int
    data_seed: int
    max_length: int
    max_train_examples: int | None = None

    metrics = ("accuracy",)

    def __post_init__(self) -> None:
        _check(self.max_length, self.max_train_examples, self.metrics, False)
        for key in ("train_examples", "evaluation_examples"):
            if getattr(self, key) < 1:
                raise UserError(f"task.{key}={getattr(self, key)}: must be at least 1")

    def load(self) -> TaskData:
        """Generate both sets."""
        train, evaluation = toy.generate(self.train_examples, self.evaluation_examples, self.data_seed)
        kept = train[: self.max_train_examples]
        return TaskData(_pairs(kept), {"validation": _pairs(evaluation)}, Labels(("negative", "positive")))


def _load(source: str, *arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset`; local data through no cache.

    The library's cache knows a local folder by its last name, so that a second `glue` elsewhere
    would be given the rows of the first.
    """
    import datasets

    if not (is_local(source) or "data_files" in options):
        return datasets.load_dataset(source, *arguments, **options)
    with tempfile.TemporaryDirectory() as folder:
        return datasets.load_dataset(source, *arguments, cache_dir=folder, keep_in_memory=True, **options)


def _pairs(pairs: Sequence[tuple[str, int]]) -> Examples:
    return Examples([(text,) for text, _ in pairs], [label for _, label in pairs])


def _subset(split: Any, size: int | None) -> Any:
    return split if size is None or size >= len(split) else split.shuffle(seed=SUBSET_SEED).select(range(size))


@dataclass(frozen=True)
class _Reader:
    """Columns of a data set as examples, each value checked."""

    where: str
    text: tuple[str, ...]
    label: str
    names: tuple[str, ...] | None
    regression: bool

    def examples(self, split: Any, name: str) -> Examples:
        if len(split) == 0:
            raise UserError(f"{self.where}: split {name} is empty; give data with at least one example")
        for key, column in [*(("text", c) for c in self.text), ("label", self.label)]:
            if column not in split.column_names:
                raise UserError(
                    f"task.{key}={column}: {self.where} has no such column; it has {', '.join(split.column_names)}"
                )
        texts = list(zip(*(split[column] for column in self.text), strict=True))
        for row, parts in enumerate(texts):
            if not all(isinstance(part, str) for part in parts):
                raise UserError(f"{self.where}: example {row} of {name} has no text in {', '.join(self.text)}")
        return Examples(texts, [self._value(v, row, name) for row, v in enumerate(split[self.label])])

    def _value(self, value: object, row: int, split: str) -> float:
        if self.regression:
            if isinstance(value, (int, float)) and value == value:
                return float(value)
            raise UserError(f"task.label={self.label}: {value!r} in example {row} of {split} is not a number")
        names = self.names or ()
        if isinstance(value, int) and 0 <= value < len(names):
            return int(value)
        if isinstance(value, str) and value in names:
            return names.index(value)
        hidden = "; this split's labels are not public" if value == -1 else ""
        raise UserError(
            f"task.label={self.label}: {value!r} in example {row} of {split} is not one of the {len(names)} labels "
            f"0 to {len(names) - 1} ({', '.join(names[:8])}){hidden}"
        )
