"""Choices: which of several texts goes with a question; multiple choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from hydraprune.data.labels import Labels, Problem, Rows, count_truncated, inputs_of


@dataclass(frozen=True)
class Choices(Labels):
    """The number of the right choice.

    The texts of an example are the question and its choices, the same number in every example. A row is the question
    with one choice; a model gives it one score.

    Args:
        choices: of each example.
    """

    names: tuple[str, ...] = ()
    choices: int = 2

    problem: ClassVar[Problem] = "multiple choice"
    fewest: ClassVar[int] = 0
    names_outputs: ClassVar[bool] = False

    @property
    def group(self) -> int:
        return self.choices

    @property
    def count(self) -> int:
        return self.choices

    @property
    def kind(self) -> str:
        return "choices"

    def width(self, config: Any) -> int:
        return 1

    def form(self, texts: Sequence[tuple[str, ...]]) -> str:
        return f"{self.choices} choices"

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Rows:
        pairs = [(question, choice) for question, *choices in texts for choice in choices]
        columns = [list(column) for column in zip(*pairs, strict=True)]
        tokens = tokenizer(*columns, truncation=True, max_length=max_length)
        if tokens.encodings is None:
            truncated = min(count_truncated(tokenizer, tokens, pairs, max_length), len(texts))
        else:
            cut = [bool(encoding.overflowing) for encoding in tokens.encodings]
            truncated = sum(any(cut[start : start + self.choices]) for start in range(0, len(cut), self.choices))
        return Rows(inputs_of(tokens), truncated=truncated)

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        return super().targets(labels, flat, offsets).repeat_interleave(self.choices)

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The score of each row, [rows, 1]."""
        # As questions of one choice: the model itself would put the rows together.
        return super().outputs(model, {name: values.unsqueeze(1) for name, values in inputs.items()})

    def loss(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy over the choices of a question."""
        return super().loss(logits.view(-1, self.choices), targets[:: self.choices], mask)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor, mask: Tensor) -> Tensor:
        """KL(teacher || student) at a temperature over the choices of a question, the mean over questions."""
        ours, theirs = (each.view(-1, self.choices) for each in (logits, teacher))
        return super().soft_loss(ours, theirs, temperature, targets, mask)

    def predictions(self, logits: Tensor, targets: Tensor, mask: Tensor) -> list[Any]:
        return super().predictions(logits.view(-1, self.choices), targets, mask)

    def references(self, targets: Tensor) -> list[Any]:
        return super().references(targets[:: self.choices])

    def values(self, labels: Iterable[Any]) -> list[float]:
        return []

    def named(self, value: Any) -> Any:
        return value

    def shown(self, texts: tuple[str, ...]) -> dict[str, Any]:
        return {"question": texts[0], "choices": texts[1:]}
