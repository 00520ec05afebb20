"""Tags: a class for each word of an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from hydraprune.data.labels import (
    IGNORED,
    Labels,
    Problem,
    Rows,
    count_truncated,
    inputs_of,
    soft_token_loss,
    token_loss,
)

# The number of the word that a token is the first of, else -1.
_WORDS = "words"


@dataclass(frozen=True)
class Tags(Labels):
    """A class for each word of an example: token classification, such as named entities.

    The text of an example is the tuple of its words, its label the list of their classes. The first token of a word
    carries its tag; the others have no target.
    """

    problem: ClassVar[Problem] = "token classification"
    per_token: ClassVar[bool] = True
    output_per_token: ClassVar[bool] = True
    needs_places: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return "tags"

    def form(self, texts: Sequence[tuple[str, ...]]) -> str:
        return f"{' '.join(str(len(words)) for words in texts)} words"

    def unknown(self, texts: tuple[str, ...]) -> Any:
        return [0] * len(texts)

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Rows:
        space = " " if needs_space(tokenizer) else ""
        words = [[f"{space}{word}" for word in words] for words in texts]
        tokens = tokenizer(words, truncation=True, max_length=max_length, is_split_into_words=True)
        empty = [(row, place) for row in range(len(words)) for place in _without_token(tokens, row, len(words[row]))]
        if empty:
            for row, place in empty:  # such as a word of zero width: every word has a tag
                words[row][place] = f"{space}{tokenizer.unk_token or tokenizer.pad_token}"
            tokens = tokenizer(words, truncation=True, max_length=max_length, is_split_into_words=True)
        first = chain.from_iterable(first_tokens(tokens, row) or [-1] for row in range(len(texts)))
        return Rows(inputs_of(tokens), {_WORDS: list(first)}, count_truncated(tokenizer, tokens, texts, max_length))

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        words = flat[_WORDS]
        starts = torch.tensor([0, *torch.tensor([len(tags) for tags in labels]).cumsum(0)])[:-1]
        tags = torch.tensor([tag for tags in labels for tag in tags], dtype=torch.int64)
        example = torch.repeat_interleave(torch.arange(len(labels)), offsets.diff())
        places = starts[example] + words
        return torch.where(words >= 0, tags[places.clamp(0, len(tags) - 1)], IGNORED)

    def loss(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy, the mean over tokens that have a target; 0 where none has."""
        return token_loss(logits, targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor, mask: Tensor) -> Tensor:
        """KL(teacher || student) at a temperature, the mean over tokens that have a target."""
        return soft_token_loss(logits, teacher, temperature, targets)

    def predictions(self, logits: Tensor, targets: Tensor, mask: Tensor) -> list[Any]:
        return self._of_words(logits.argmax(-1), targets)

    def references(self, targets: Tensor) -> list[Any]:
        return self._of_words(targets, targets)

    def _of_words(self, classes: Tensor, targets: Tensor) -> list[Any]:
        """The names of the classes of each example's words, those cut off left out."""
        rows = zip(classes.cpu().tolist(), targets.cpu().tolist(), strict=True)
        return [[self.names[number] for number, target in zip(*row, strict=True) if target != IGNORED] for row in rows]

    def values(self, labels: Iterable[Any]) -> list[float]:
        return [tag for tags in labels for tag in tags]

    def named(self, value: Any) -> Any:
        return value

    def of_texts(self, value: Any, texts: tuple[str, ...]) -> Any:
        return [*value, *[None] * (len(texts) - len(value))]

    def shown(self, texts: tuple[str, ...]) -> dict[str, Any]:
        return {"words": texts}


def needs_space(tokenizer: Any) -> bool:
    """Whether a tokenizer reads a word by itself as no running text has it, and with a space before it as text has.

    Those of GPT-2 and RoBERTa do: transformers 5 gives a word of split text no space, unless they were loaded with
    `add_prefix_space=True`.
    """

    def second(text: Any, is_split: bool) -> list[int]:
        tokens = tokenizer(text, is_split_into_words=is_split)
        return [token for token, word in zip(tokens["input_ids"], tokens.word_ids(), strict=True) if word == 1]

    running = second("the the", False)
    return second(["the", "the"], True) != running and second([" the", " the"], True) == running


def _without_token(tokens: Any, row: int, words: int) -> list[int]:
    """The words of an example that have no token, though they are not beyond the maximal length."""
    found = {word for word in tokens.word_ids(row) if word is not None}
    reached = max(found, default=-1) + 1 if tokens.encodings[row].overflowing else words
    return [word for word in range(reached) if word not in found]


def first_tokens(tokens: Any, row: int) -> list[int]:
    """For each token of an example the number of its word if it is the word's first token, else -1."""
    words = tokens.word_ids(row)
    return [
        -1 if word is None or (place and words[place - 1] == word) else int(word) for place, word in enumerate(words)
    ]
