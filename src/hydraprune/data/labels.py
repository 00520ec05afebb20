"""Labels: what a model's head predicts; how it is learned, and what its outputs say.

One class per kind of task. A task makes one of them, and everything else asks it: which head a model needs, how texts
and labels become tensors, the loss of its outputs, and the predictions that metrics compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Which head a model needs; `hydraprune.models` knows the classes of transformers.
Problem = Literal["sequence classification", "token classification"]
# Of a token without a label: torch's losses leave it out.
IGNORED = -100


@dataclass(frozen=True)
class Labels:
    """Classes, in the order of a head's outputs, one for each example; or one score.

    Args:
        names: of the outputs.
        regression: whether the output is a score.
    """

    names: tuple[str, ...]
    regression: bool = False

    problem: ClassVar[Problem] = "sequence classification"
    # Outputs of the head without which there is nothing to learn.
    fewest: ClassVar[int] = 2
    # Whether each token has a target, or each example.
    per_token: ClassVar[bool] = False

    @property
    def count(self) -> int:
        """Outputs of the head."""
        return len(self.names)

    @property
    def kind(self) -> str:
        """What is predicted, in messages and as the key of its metrics."""
        return "scores" if self.regression else "classes"

    @property
    def problem_type(self) -> str | None:
        """The field of that name of a Hugging Face config."""
        return "regression" if self.regression else "single_label_classification"

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Any:
        """The tokens of some examples' texts, truncated to `max_length`."""
        # One text or two; a tokenizer takes the second as text_pair.
        columns = [list(column) for column in zip(*texts, strict=True)]
        return tokenizer(*columns, truncation=True, max_length=max_length)

    def targets(self, labels: Sequence[Any], words: Tensor | None, offsets: Tensor) -> Tensor:
        """What the loss compares with: [examples], or [tokens of all examples] if `per_token`.

        Args:
            labels: of the examples.
            words: [tokens of all examples], see `first_tokens`; None unless `per_token`.
            offsets: [examples + 1], see `Encoded`.
        """
        return torch.tensor(labels, dtype=torch.float32 if self.regression else torch.int64)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The task's own loss, a scalar: cross-entropy of classes, mean squared error of scores."""
        return task_loss(logits, targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
        """KL(teacher || student) of the outputs at a temperature, a scalar: the mean over examples."""
        ours, theirs = (F.log_softmax(x.float() / temperature, dim=-1) for x in (logits, teacher))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

    def predictions(self, logits: Tensor, targets: Tensor) -> list[Any]:
        """A prediction for each example of a batch, in the form in which metrics compare it."""
        predicted = logits.squeeze(-1) if self.regression else logits.argmax(-1)
        found: list[Any] = predicted.cpu().tolist()
        return found

    def references(self, targets: Tensor) -> list[Any]:
        """The labels of a batch in the same form."""
        found: list[Any] = targets.cpu().tolist()
        return found

    def values(self, labels: Iterable[Any]) -> list[float]:
        """The classes, or scores, of all examples, one after the other."""
        return list(labels)

    def named(self, value: Any) -> Any:
        """A prediction or reference by the names of its classes."""
        return value if self.regression else self.names[int(value)]


SCORE = Labels(("score",), regression=True)
# Of classes whose names do not matter.
CLASSES = Labels(())


@dataclass(frozen=True)
class LabelSets(Labels):
    """Any number of classes for each example, none too: multi-label classification.

    A label is the list of its classes' numbers.
    """

    @property
    def kind(self) -> str:
        return "label sets"

    @property
    def problem_type(self) -> str | None:
        return "multi_label_classification"

    def targets(self, labels: Sequence[Any], words: Tensor | None, offsets: Tensor) -> Tensor:
        found = torch.zeros(len(labels), self.count)
        for row, numbers in enumerate(labels):
            found[row, list(numbers)] = 1.0
        return found

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, the mean over examples and classes."""
        return F.binary_cross_entropy_with_logits(logits.float(), targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
        """The same for each class by itself, against not having it; the mean over examples, summed over classes."""
        return binary_kl_divergence(logits, teacher, temperature).sum(-1).mean()

    def predictions(self, logits: Tensor, targets: Tensor) -> list[Any]:
        found: list[Any] = (logits > 0).int().cpu().tolist()
        return found

    def references(self, targets: Tensor) -> list[Any]:
        found: list[Any] = targets.int().cpu().tolist()
        return found

    def values(self, labels: Iterable[Any]) -> list[float]:
        return [number for numbers in labels for number in numbers]

    def named(self, value: Any) -> Any:
        return [name for name, has_it in zip(self.names, value, strict=True) if has_it]


@dataclass(frozen=True)
class Tags(Labels):
    """A class for each word of an example: token classification, such as named entities.

    The text of an example is the tuple of its words, its label the list of their classes. The first token of a word
    carries its tag; the others have no target.
    """

    problem: ClassVar[Problem] = "token classification"
    per_token: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return "tags"

    @property
    def problem_type(self) -> str | None:
        return None

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Any:
        space = " " if needs_space(tokenizer) else ""
        words = [[f"{space}{word}" for word in words] for words in texts]
        tokens = tokenizer(words, truncation=True, max_length=max_length, is_split_into_words=True)
        empty = [(row, place) for row in range(len(words)) for place in _without_token(tokens, row, len(words[row]))]
        if not empty:
            return tokens
        for row, place in empty:  # such as a word of zero width: every word has a tag
            words[row][place] = f"{space}{tokenizer.unk_token or tokenizer.pad_token}"
        return tokenizer(words, truncation=True, max_length=max_length, is_split_into_words=True)

    def targets(self, labels: Sequence[Any], words: Tensor | None, offsets: Tensor) -> Tensor:
        assert words is not None
        starts = torch.tensor([0, *torch.tensor([len(tags) for tags in labels]).cumsum(0)])[:-1]
        tags = torch.tensor([tag for tags in labels for tag in tags], dtype=torch.int64)
        example = torch.repeat_interleave(torch.arange(len(labels)), offsets.diff())
        places = starts[example] + words
        return torch.where(words >= 0, tags[places.clamp(0, len(tags) - 1)], IGNORED)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, the mean over tokens that have a target; 0 where none has."""
        return F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        ) / (targets != IGNORED).sum().clamp(min=1)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
        """The same, the mean over tokens that have a target."""
        counted = targets != IGNORED
        return (kl_divergence(logits, teacher, temperature) * counted).sum() / counted.sum().clamp(min=1)

    def predictions(self, logits: Tensor, targets: Tensor) -> list[Any]:
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


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of classes or scores: cross-entropy for classes, mean squared error for scores.

    Args:
        logits: [batch, outputs].
        labels: [batch], integers, or floats for a regression.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels)
    return F.cross_entropy(logits.float(), labels)


def kl_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of classes at a temperature: [..., classes] each -> [...]."""
    ours, theirs = (F.log_softmax(x.float() / temperature, dim=-1) for x in (logits, teacher))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def binary_kl_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of having a class or not, at a temperature: like `logits`."""
    ours, theirs = (torch.stack((x, -x), -1).float() / temperature for x in (logits, teacher))
    ours, theirs = F.logsigmoid(ours), F.logsigmoid(theirs)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


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
