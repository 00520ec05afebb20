"""What was read of a task's data: rows, examples and classes of every split, and digests of the contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hydraprune.utils.cache import sha256_of
from hydraprune.utils.digests import file_digest


@dataclass(frozen=True)
class SplitSummary:
    """What became of the rows of one split.

    Args:
        read: rows that were read for it.
        used: examples.
        left_out: reason -> rows that were read and are not used in this split. `read` is the sum of `used` and these.
        classes: class -> examples of it, in the order of the model's outputs, with those of no example; empty for
            scores.
        scores: the lowest and the highest score; None for classes.
        empty: examples in which a text is empty.
        multiline: rows of a csv file that span more than one line.
        truncated: examples of more than `task.max_length` tokens; None before they are tokenized.
    """

    read: int
    used: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    scores: tuple[float, float] | None = None
    empty: int = 0
    multiline: int = 0
    truncated: int | None = None

    @classmethod
    def of(
        cls,
        texts: Sequence[tuple[str, ...]],
        labels: Sequence[float],
        names: Sequence[str] | None,
        left_out: Mapping[str, int] | None = None,
        multiline: int = 0,
    ) -> SplitSummary:
        """The summary of some examples.

        Args:
            labels: indices into `names`, or scores.
            names: names of the classes; None for scores.
            left_out, multiline: see the class.
        """
        counts = Counter(labels)
        left_out = {reason: rows for reason, rows in (left_out or {}).items() if rows}
        return cls(
            read=len(texts) + sum(left_out.values()),
            used=len(texts),
            left_out=left_out,
            classes={} if names is None else {name: counts[index] for index, name in enumerate(names)},
            scores=(min(labels), max(labels)) if names is None and len(labels) else None,
            empty=sum(any(not text.strip() for text in pair) for pair in texts),
            multiline=multiline,
        )


@dataclass(frozen=True)
class DataSummary:
    """What was read of a task's data.

    Args:
        splits: `train` and the names of the evaluation sets -> what became of their rows.
        digests: file, as the config names it -> SHA-256 of its bytes; or split -> SHA-256 of its examples, for data
            that does not come from a file of the user.
    """

    splits: Mapping[str, SplitSummary] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def with_truncated(self, truncated: Mapping[str, int]) -> DataSummary:
        """The same with the number of truncated examples of some splits (`Encoded.truncated`)."""
        splits = {
            name: replace(split, truncated=truncated.get(name, split.truncated)) for name, split in self.splits.items()
        }
        return replace(self, splits=splits)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def file_digests(paths: Mapping[str, Path]) -> dict[str, str]:
    """Name -> SHA-256 of the bytes of the file at its path, in hex.

    Raises:
        OSError: a file cannot be read.
    """
    return {name: file_digest(path) for name, path in paths.items()}


def examples_digest(texts: Sequence[tuple[str, ...]], labels: Sequence[Any]) -> str:
    """SHA-256 of some examples in their order, in hex."""
    parts = (text.encode("utf-8", "surrogatepass") for pair in texts for text in pair)
    numbers = repr([list(label) if isinstance(label, Sequence) else float(label) for label in labels]).encode()
    return sha256_of([f"{len(texts)} {len(texts[0]) if texts else 0}".encode(), *parts, numbers])
