"""Language modelling: running text, of the hub or of the user's files, cut into rows of one length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.record_task import RecordTask
from hydraprune.data.summary import DataSummary, SplitSummary
from hydraprune.data.token_labels import MaskedTokens, NextTokens
from hydraprune.errors import UserError

# Characters of a piece of text that is tokenized at once. The test sets on which perplexities are published are
# smaller, so that they are tokenized whole, as there.
_PIECE = 4_000_000


@dataclass(frozen=True, kw_only=True)
class TextTask(RecordTask):
    """Running text whose next tokens are predicted.

    The texts are joined, tokenized and cut into rows of `max_length` tokens; what remains at the end is left out, as in
    run_clm.py of transformers and where perplexities on WikiText-2 are published.

    Args:
        text: the column of texts; a `.txt` file has a text in each line.
        separator: between the texts.
        max_train_examples: texts, the first ones.
        validation_share: the end of the training text that is held out, where there is no other.
        (the others as in `RecordTask`)
    """

    labels: None = None
    text: str
    separator: str

    @property
    def columns(self) -> Sequence[str]:
        return (self.text,)

    @property
    def class_column(self) -> str | None:
        return None

    def head(self, names: tuple[str, ...]) -> Labels:
        return NextTokens()

    def names(self, rows: Any) -> tuple[str, ...]:
        return ()

    @property
    def label_columns(self) -> Sequence[str]:
        return ()

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        text = row[self.text]
        if not isinstance(text, str):
            raise ValueError(f"{self.text} holds {text!r:.40}, which is no text", "give a column of texts")
        return (text,)

    def label_of(self, row: Mapping[str, Any], texts: tuple[str, ...], numbers: Mapping[str | int, int]) -> int:
        return 0

    def load(self) -> TaskData:
        found = super().load()
        sets = {"train": found.train, **found.evaluations}
        pieces = {name: self._joined(name, each) for name, each in sets.items()}
        splits = {
            name: SplitSummary(read=split.read, used=split.used, left_out=split.left_out)
            for name, split in found.summary.splits.items()
        }
        train = pieces.pop("train")
        return TaskData(train, pieces, found.labels, DataSummary(splits, found.summary.digests))

    def drawn(self, places: Sequence[int], most: int | None) -> Sequence[int]:
        return places if most is None else places[:most]

    def divided(self, places: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        apart = round(self.validation_share * len(places))
        if not 0 < apart < len(places):
            raise UserError(
                f"leaves one of the two sets empty: there are {len(places)} texts",
                key="task.validation_share",
                value=self.validation_share,
                cure="give task.validation_path",
            )
        return places[: len(places) - apart], places[len(places) - apart :]

    def read_texts(self, split: str | None, file: str | None) -> Examples:
        return self._joined(str(split or file), super().read_texts(split, file))

    def _joined(self, name: str, examples: Examples) -> Examples:
        pieces = [(piece,) for piece in _pieces([text for (text,) in examples.texts], self.separator)]
        if not pieces:
            raise UserError(f"the texts of {name} are empty", key="task.path", value=self.path)
        return Examples(pieces, [0] * len(pieces))


@dataclass(frozen=True, kw_only=True)
class MaskedTextTask(TextTask):
    """Running text in which hidden tokens are predicted, as BERT is pre-trained.

    Args:
        masked_share: of the tokens that are hidden.
        (the others as in `TextTask`)
    """

    masked_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.masked_share < 1:
            raise UserError("must be between 0 and 1", key="task.masked_share", value=self.masked_share)

    def head(self, names: tuple[str, ...]) -> Labels:
        return MaskedTokens(share=self.masked_share)


def _pieces(texts: Sequence[str], separator: str) -> Iterator[str]:
    """The texts joined, in pieces that end with a whole text; none if there is nothing but white space."""
    kept: list[str] = []
    size = 0
    for place, text in enumerate(texts):
        kept.append(text)
        size += len(text) + len(separator)
        if size >= _PIECE or place + 1 == len(texts):
            piece = separator.join(kept)
            if piece.strip():
                yield piece if place + 1 == len(texts) else piece + separator
            kept, size = [], 0
