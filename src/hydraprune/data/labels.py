"""Labels: what a model's head predicts; how it is learned, and what its outputs say.

One class per kind of task, here and in `tag_labels`, `span_labels`, `choice_labels` and `token_labels`. A task makes
one of them, and everything else asks it: which head a model needs, how texts and labels become tensors, the loss of its
outputs, and the predictions that metrics compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Which head a model needs; `hydraprune.models` knows the classes of transformers.
Problem = Literal[
    "sequence classification",
    "token classification",
    "question answering",
    "multiple choice",
    "causal language modelling",
    "masked language modelling",
]
# Of a token without a label: torch's losses leave it out.
IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """The tokens of some examples: the rows that a model reads, one for each example or several.

    Args:
        inputs: model argument -> its numbers in each row; includes `input_ids`.
        beside: name -> integers [tokens of all rows], or [anything], that are kept beside the inputs.
        truncated: examples of which tokens were left out.
    """

    inputs: Mapping[str, Sequence[Sequence[int]]]
    beside: Mapping[str, Sequence[int]] = field(default_factory=dict)
    truncated: int = 0


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
    # Whether each token has a target, or each row.
    per_token: ClassVar[bool] = False
    # Whether a model's outputs have a row for each token.
    output_per_token: ClassVar[bool] = False
    # Whether the outputs are these names, so that the config of a model holds them.
    names_outputs: ClassVar[bool] = True
    # Whether a head with random weights can be trained, where a checkpoint has none.
    learns_new_head: ClassVar[bool] = True
    # Whether the number of an example's rows depends on its tokens.
    varies_rows: ClassVar[bool] = False
    # Whether rows are cut from running text, and are the examples of a metric.
    is_running_text: ClassVar[bool] = False
    # Whether the tokenizer must tell where in the text a token is.
    needs_places: ClassVar[bool] = False

    @property
    def group(self) -> int:
        """Consecutive rows that belong together, such as the choices of a question."""
        return 1

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
        """The field of that name of a Hugging Face config; None for heads that are no classifier's of whole texts."""
        if self.problem != "sequence classification":
            return None
        return "regression" if self.regression else "single_label_classification"

    def width(self, config: Any) -> int:
        """Outputs of a model, given its Hugging Face config."""
        return self.count

    def form(self, texts: Sequence[tuple[str, ...]]) -> str:
        """What tokens depend on beside the texts and the maximal length."""
        return str(len(texts[0]))

    def unknown(self, texts: tuple[str, ...]) -> Any:
        """A label that stands for an unknown one, where tokens are only read."""
        return 0

    def excerpt(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Of an example, as much as a trial needs."""
        return texts

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Rows:
        """The tokens of some examples' texts, truncated to `max_length`."""
        # One text or two; a tokenizer takes the second as text_pair.
        columns = [list(column) for column in zip(*texts, strict=True)]
        tokens = tokenizer(*columns, truncation=True, max_length=max_length)
        return Rows(inputs_of(tokens), truncated=count_truncated(tokenizer, tokens, texts, max_length))

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        """What the loss compares with: [rows], or [tokens of all rows] if `per_token`.

        Args:
            labels: of the examples.
            flat: the inputs and what is beside them, see `Rows`.
            offsets: [rows + 1], see `Encoded`.
        """
        return torch.tensor(labels, dtype=torch.float32 if self.regression else torch.int64)

    def count_lost(self, labels: Sequence[Any], targets: Tensor, beside: Mapping[str, Tensor]) -> int:
        """Examples whose label no row holds, since it was cut."""
        return 0

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The outputs of a model's head for some rows, [rows, outputs] or [rows, length, outputs]."""
        logits: Tensor = model(**inputs).logits
        return logits

    def misfit_on(self, model: Any, inputs: Mapping[str, Tensor]) -> str | None:
        """Why a loaded model cannot predict these, found on a few rows; None if it can."""
        return None

    def loss(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """The task's own loss, a scalar: cross-entropy of classes, mean squared error of scores.

        Args:
            logits: see `outputs`.
            targets: of these rows.
            mask: [rows, length], True on real tokens.
        """
        return task_loss(logits, targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor, mask: Tensor) -> Tensor:
        """KL(teacher || student) of the outputs at a temperature, a scalar: the mean over examples."""
        ours, theirs = (F.log_softmax(x.float() / temperature, dim=-1) for x in (logits, teacher))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

    def predictions(self, logits: Tensor, targets: Tensor, mask: Tensor) -> list[Any]:
        """A prediction for each example of a batch (each row, if `varies_rows`)."""
        predicted = logits.squeeze(-1) if self.regression else logits.argmax(-1)
        found: list[Any] = predicted.cpu().tolist()
        return found

    def references(self, targets: Tensor) -> list[Any]:
        """The labels of a batch in the same form."""
        found: list[Any] = targets.cpu().tolist()
        return found

    def collect(self, predictions: list[Any], references: list[Any], data: Any) -> tuple[list[Any], list[Any]]:
        """Those of a whole set, an `Encoded`, in its order, in the form in which metrics compare them."""
        return predictions, references

    def values(self, labels: Iterable[Any]) -> list[float]:
        """The classes, or scores, of all examples, one after the other."""
        return list(labels)

    def named(self, value: Any) -> Any:
        """A prediction or reference by the names of its classes."""
        return value if self.regression else self.names[int(value)]

    def of_texts(self, value: Any, texts: tuple[str, ...]) -> Any:
        """A named prediction for all of an example's texts: null for words that were cut off."""
        return value

    def shown(self, texts: tuple[str, ...]) -> dict[str, Any]:
        """The texts of an example by name, for a file of predictions."""
        return {"text": texts[0], **{f"text_{place}": text for place, text in enumerate(texts[1:], start=2)}}


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

    def unknown(self, texts: tuple[str, ...]) -> Any:
        return []

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        found = torch.zeros(len(labels), self.count)
        for row, numbers in enumerate(labels):
            found[row, list(numbers)] = 1.0
        return found

    def loss(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Binary cross-entropy, the mean over examples and classes."""
        return F.binary_cross_entropy_with_logits(logits.float(), targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor, mask: Tensor) -> Tensor:
        """KL(teacher || student) of having each class or not; the mean over examples, summed over classes."""
        return binary_kl_divergence(logits, teacher, temperature).sum(-1).mean()

    def predictions(self, logits: Tensor, targets: Tensor, mask: Tensor) -> list[Any]:
        found: list[Any] = (logits > 0).int().cpu().tolist()
        return found

    def references(self, targets: Tensor) -> list[Any]:
        found: list[Any] = targets.int().cpu().tolist()
        return found

    def values(self, labels: Iterable[Any]) -> list[float]:
        return [number for numbers in labels for number in numbers]

    def named(self, value: Any) -> Any:
        return [name for name, has_it in zip(self.names, value, strict=True) if has_it]


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of classes or scores: cross-entropy for classes, mean squared error for scores.

    Args:
        logits: [batch, outputs].
        labels: [batch], integers, or floats for a regression.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels)
    return F.cross_entropy(logits.float(), labels)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, the mean over tokens that have a target; 0 where none has.

    Args:
        logits: [rows, length, classes].
        targets: [rows, length]; `IGNORED` where there is none.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum") / (
        targets != IGNORED
    ).sum().clamp(min=1)


def soft_token_loss(logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """KL(teacher || student) at a temperature, the mean over tokens that have a target; 0 where none has."""
    counted = targets != IGNORED
    return (kl_divergence(logits, teacher, temperature) * counted).sum() / counted.sum().clamp(min=1)


def kl_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of classes at a temperature: [..., classes] each -> [...]."""
    ours, theirs = (F.log_softmax(x.float() / temperature, dim=-1) for x in (logits, teacher))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def binary_kl_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of having a class or not, at a temperature: like `logits`."""
    ours, theirs = (torch.stack((x, -x), -1).float() / temperature for x in (logits, teacher))
    ours, theirs = F.logsigmoid(ours), F.logsigmoid(theirs)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def inputs_of(tokens: Any) -> dict[str, list[list[int]]]:
    """What a tokenizer returned as the model's arguments; attention masks follow from the lengths."""
    return {key: rows for key, rows in tokens.items() if key != "attention_mask"}


def count_truncated(tokenizer: Any, tokens: Any, texts: Sequence[Sequence[str]], max_length: int) -> int:
    """How many of the texts, whose `tokens` are truncated to `max_length`, had more."""
    if tokens.encodings is not None:
        return sum(bool(encoding.overflowing) for encoding in tokens.encodings)
    # A tokenizer written in Python does not say it: those that fill the length are tokenized again without a limit.
    full = [place for place, row in enumerate(tokens["input_ids"]) if len(row) >= max_length]
    if not full:
        return 0
    columns = zip(*(texts[place] for place in full), strict=True)
    again = tokenizer(*(list(column) for column in columns), truncation=False, verbose=False)
    return sum(len(row) > max_length for row in again["input_ids"])
