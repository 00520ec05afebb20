"""Tasks that tag words: named entities and the like, of the hub or of the user's files, and of the toy language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data import toy
from hydraprune.data.examples import Examples, TaskData
from hydraprune.data.labels import Tags
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

_OUTSIDE = "O"
# Of tags whose names are not known yet.
_ANY = Tags(())


@dataclass(frozen=True)
class TagTask:
    """A data set in which each word of an example has a tag.

    Args:
        name: the name on the command line; names folders and rows of tables.
        path: hub id, folder, or a json, parquet or word-per-line (`.conll`, `.iob`, `.txt`) file.
        words, tags: columns of lists. A word-per-line file has words in its first and tags in its last column.
        labels: names of the tags, in the order of their numbers; None for those that the data has.
        metrics: the first one is the headline.
        max_length: most tokens of an example; words beyond are not tagged.
        train, validation: names of splits, of a data set that has some.
        validation_path: the evaluation file; None to evaluate on a `validation_share` of the training file.
        (the others as in `HubTask` and `FileTask`)

    Raises:
        UserError: a value is out of range.
    """

    name: str
    path: str
    words: str
    tags: str
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
        check_common(self, _ANY, self.max_train_examples)
        check_share(self.validation_share)
        if self.words == self.tags:
            raise UserError("is the column of words too", key="task.tags", value=self.tags, cure="name another column")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise UserError("names a tag twice", key="task.labels", value=list(self.labels))

    def load(self) -> TaskData:
        """Read and check every split.

        Raises:
            UserError: the data cannot be found or read, a row has other words than tags, or a tag has no name.
        """
        with scratch_folder() as scratch:
            splits = self._splits(scratch)
            names = self._names(splits[0][1])
            # Before rows are drawn: an error names a row of the file.
            read = {name: self._examples(source, table, names) for source, (name, table) in splits}
            (_, whole), rows = next(iter(read.items())), len(splits[0][1][1])
        train, apart = list(range(len(whole))), 0
        evaluations = dict(list(read.items())[1:])
        if not evaluations:
            kept, rest = split_off(_places(len(whole)), self.validation_share, ", or task.validation_path")
            train, apart = kept.rows["place"], len(rest)
            evaluations = {"validation": _chosen(whole, rest.rows["place"])}
        kept = subset(_places(len(train)), self.max_train_examples)
        used = _chosen(whole, [train[place] for place in kept.rows["place"]])
        left_out = {"no words": rows - len(whole), **left_out_of(len(whole), apart, len(used))}
        return task_data(used, evaluations, Tags(names), left_out, digests=self.digests() or None)

    def digests(self) -> dict[str, str]:
        """File, as the config names it -> SHA-256 of its bytes; empty for a data set with splits."""
        if not is_file(self.path):
            return {}
        paths = [self.path, *([] if self.validation_path is None else [self.validation_path])]
        return file_digests({path: at_home(path) for path in paths})

    def _splits(self, scratch: str) -> list[tuple[Source, tuple[str, Any]]]:
        """(source, (name, rows)) of the training set and of the evaluation sets; of the first alone if it is split."""
        columns, source = (self.words, self.tags), Source("task.path", self.path)
        if not is_file(self.path):
            names = (self.train, *self.validation)
            found = load_records(source, self.subset, self.revision, names, columns, scratch)
            return [(source.within(f"split {name}"), (name, found[name])) for name in names]
        sets = [(source, ("train", read_records(source, columns, scratch)))]
        if self.validation_path is not None:
            other = Source("task.validation_path", self.validation_path)
            if not is_file(self.validation_path):
                raise other.error("no such file")
            sets.append((other, ("validation", read_records(other, columns, scratch))))
        return sets

    def _names(self, split: tuple[str, Any]) -> tuple[str, ...]:
        """The names of the tags: those given, those of the column's type, or the texts that occur, `O` first."""
        if self.labels is not None:
            return as_tuple(self.labels)
        rows = split[1]
        feature = rows.features[self.tags]
        inner = getattr(feature, "feature", feature)
        if named := getattr(inner, "names", None):
            return tuple(named)
        found = {tag for tags in rows[self.tags] for tag in tags or ()}
        if not all(isinstance(tag, str) for tag in found):
            reason = f"column {self.tags} holds numbers, and nothing names them"
            raise UserError(reason, key="task.labels", value=None, cure="give task.labels=[O,B-PER,...] in their order")
        return tuple(sorted(found, key=lambda tag: (tag != _OUTSIDE, tag)))

    def _examples(self, source: Source, rows: Any, names: tuple[str, ...]) -> Examples:
        """The examples of some rows, those without a word left out.

        Raises:
            UserError: naming the row.
        """
        numbers = {name: number for number, name in enumerate(names)}
        texts: list[tuple[str, ...]] = []
        labels: list[list[int]] = []
        for row, (words, tags) in enumerate(zip(rows[self.words], rows[self.tags], strict=True)):
            if not words:
                continue
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise source.error(f"row {row} (from 0): {self.words} is no list of words", "split texts into words")
            if not isinstance(tags, list) or len(tags) != len(words):
                count = len(tags) if isinstance(tags, list) else 0
                reason = f"row {row} (from 0): {len(words)} {self.words} and {count} {self.tags}"
                raise source.error(reason, "give each word one tag")
            texts.append(tuple(words))
            labels.append([_number(source, row, tag, numbers) for tag in tags])
        if not texts:
            raise source.error("no row has a word")
        return Examples(texts, labels)


def _places(count: int) -> Table:
    """The numbers of examples as a table, from which some are drawn."""
    import datasets

    return Table(datasets.Dataset.from_dict({"place": range(count)}))


def _chosen(examples: Examples, places: Sequence[int]) -> Examples:
    return Examples([examples.texts[place] for place in places], [examples.labels[place] for place in places])


def _number(source: Source, row: int, tag: Any, numbers: dict[str, int]) -> int:
    number = numbers.get(tag) if isinstance(tag, str) else tag
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(numbers):
        known = ", ".join(list(numbers)[:8])
        raise source.error(f"row {row} (from 0): tag {tag!r} is none of task.labels ({known})", "name it there")
    return number


@dataclass(frozen=True)
class ToyTagTask:
    """Sentences of the toy language (`hydraprune.data.toy`) in which things and opinions are tagged.

    A thing is a subject; an opinion is an adjective with what strengthens or turns it, of the type `GOOD` or `BAD` that
    it has then.

    Raises:
        UserError: a value is out of range.
    """

    name: str
    train_examples: int
    evaluation_examples: int
    data_seed: int
    max_length: int
    max_train_examples: int | None = None

    metrics = ("f1", "accuracy")

    def __post_init__(self) -> None:
        check_common(self, _ANY, self.max_train_examples)

    def load(self) -> TaskData:
        """Generate both sets."""
        train, evaluation = toy.generate(self.train_examples, self.evaluation_examples, self.data_seed)
        kept = train[: self.max_train_examples]
        left_out = left_out_of(len(train), 0, len(kept))
        labels = Tags(toy.TAGS)
        return task_data(_toy_examples(kept), {"validation": _toy_examples(evaluation)}, labels, left_out)


def _toy_examples(pairs: Sequence[tuple[str, int]]) -> Examples:
    texts = [tuple(text.split()) for text, _ in pairs]
    return Examples(texts, [[toy.TAGS.index(tag) for tag in toy.tags(words)] for words in texts])
