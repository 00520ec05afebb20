"""What a task provides: labelled examples, and the interface of a task class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from hydraprune.data.labels import SCORE, Labels
from hydraprune.data.metrics import Metric
from hydraprune.data.summary import DataSummary, SplitSummary, examples_digest

__all__ = ["SCORE", "Examples", "Labels", "Task", "TaskData"]


@dataclass(frozen=True)
class Examples:
    """Texts and their labels.

    Args:
        texts: of each example one or two; its words for `Tags`, question and choices for `Choices`.
        labels: indices into `Labels.names`, or scores; lists of indices for `LabelSets` and `Tags`, lists of (text,
            first character) for `Spans`, the number of the right choice for `Choices`.
    """

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[Any]

    def __len__(self) -> int:
        return len(self.texts)


NO_EXAMPLES = Examples((), ())


@dataclass(frozen=True)
class TaskData:
    """The examples of a task: one training set, and evaluation sets by name, of which the first is the main one.

    Args:
        summary: what was read; by default it is counted from the examples.
    """

    train: Examples
    evaluations: Mapping[str, Examples]
    labels: Labels
    summary: DataSummary = field(default_factory=DataSummary)

    def __post_init__(self) -> None:
        if not self.summary.splits:
            names = None if self.labels.regression else self.labels.names
            sets = {"train": self.train, **self.evaluations}
            splits = {
                name: SplitSummary.of(each.texts, self.labels.values(each.labels), names) for name, each in sets.items()
            }
            digests = {name: examples_digest(each.texts, each.labels) for name, each in sets.items()}
            object.__setattr__(self, "summary", DataSummary(splits, digests))


class Task(Protocol):
    """What a task class must offer; a config names it by `task._target_`, and its fields are the config's keys.

    A frozen dataclass with these fields and a `load` method is enough; it need not inherit from this.
    """

    @property
    def name(self) -> str:
        """The name on the command line; names folders and rows of tables."""

    @property
    def max_length(self) -> int:
        """Most tokens of an example, special tokens included; longer ones are truncated."""

    @property
    def metrics(self) -> Sequence[str | Metric]:
        """Names of built-in metrics, or functions; the first is the headline."""

    def load(self) -> TaskData:
        """Load and check the examples.

        Called once per run, before anything is trained. It must not depend on the seed.

        Raises:
            UserError: the data cannot be used; with the config key, its value and a cure.
        """


@runtime_checkable
class ReadsTexts(Protocol):
    """What a task offers beside, if texts without labels can be read: `hydraprune predict` uses it."""

    def read_texts(self, split: str | None, file: str | None) -> Examples:
        """The texts of a split, or of a file, without their labels: each label is None.

        Raises:
            UserError: the data cannot be found or read, or a text is none.
        """

    def head_of(self, names: tuple[str, ...], examples: Examples) -> Labels:
        """What a model whose outputs have these names predicts for some examples."""
