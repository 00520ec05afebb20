"""Tasks that tag words: named entities and the like, of the hub or of the user's files, and of the toy language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hydraprune.data import toy
from hydraprune.data.examples import Examples, Labels
from hydraprune.data.record_task import RecordTask, names_in, number_of
from hydraprune.data.tag_labels import Tags
from hydraprune.data.task_checks import as_tuple
from hydraprune.data.tasks import ToyTask
from hydraprune.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TagTask(RecordTask):
    """A data set in which each word of an example has a tag.

    Args:
        words, tags: columns of lists. A word-per-line file (`.conll`, `.iob`, `.txt`) has words in its first column and
            tags in its last.
        (the others as in `RecordTask`)
    """

    words: str
    tags: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words == self.tags:
            raise UserError("is the column of words too", key="task.tags", value=self.tags, cure="name another column")

    @property
    def columns(self) -> Sequence[str]:
        return self.words, self.tags

    @property
    def class_column(self) -> str | None:
        return self.tags

    def head(self, names: tuple[str, ...]) -> Labels:
        return Tags(names)

    def names(self, rows: Any) -> tuple[str, ...]:
        return names_in(rows, self.tags, first="O") if self.labels is None else as_tuple(self.labels)

    @property
    def label_columns(self) -> Sequence[str]:
        return (self.tags,)

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        words = row[self.words]
        if words is None:
            return ()
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{self.words} is no list of words", "split texts into words")
        return tuple(words)

    def label_of(self, row: Mapping[str, Any], texts: tuple[str, ...], numbers: Mapping[str | int, int]) -> list[int]:
        words, tags = texts, row[self.tags]
        if not isinstance(tags, list) or len(tags) != len(words):
            count = len(tags) if isinstance(tags, list) else 0
            raise ValueError(f"{len(words)} {self.words} and {count} {self.tags}", "give each word one tag")
        return [number_of(tag, numbers) for tag in tags]


@dataclass(frozen=True)
class ToyTagTask(ToyTask):
    """Sentences of the toy language (`hydraprune.data.toy`) in which things and opinions are tagged.

    A thing is a subject; an opinion is an adjective with what strengthens or turns it, of the type `GOOD` or `BAD` that
    it has then.
    """

    metrics: ClassVar[tuple[str, ...]] = ("f1", "accuracy")
    head: ClassVar[Labels] = Tags(toy.TAGS)

    def _examples(self, pairs: Sequence[tuple[str, int]]) -> Examples:
        texts = [tuple(text.split()) for text, _ in pairs]
        return Examples(texts, [[toy.TAGS.index(tag) for tag in toy.tags(words)] for words in texts])
