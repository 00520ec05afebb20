"""Extractive question answering: the answer is a part of the context; data sets like SQuAD, and the user's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.data.examples import Examples, Labels
from hydraprune.data.record_task import RecordTask
from hydraprune.data.span_labels import Spans, check_length
from hydraprune.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QuestionTask(RecordTask):
    """A data set of questions, contexts and answers.

    Args:
        question, context: columns of texts.
        answers: a column that holds `{"text": [...], "answer_start": [...]}`, or a list of pairs
            `{"text": ..., "answer_start": ...}`; empty for a question without an answer. A json file may be nested as
            SQuAD's own.
        max_length: most tokens of a row, of question and context together; a longer context is read in several rows.
        stride: tokens that neighbouring rows share.
        longest_answer: most tokens of an answer that is predicted.
        no_answer: whether none may be predicted; None: if some question of the set has none.
        (the others as in `RecordTask`)
    """

    labels: None = None
    no_answer: bool | None
    question: str
    context: str
    answers: str
    stride: int
    longest_answer: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.max_length)
        if not 0 <= self.stride <= self.max_length // 2:
            reason = f"must be at least 0 and at most half of task.max_length={self.max_length}"
            raise UserError(reason, key="task.stride", value=self.stride)
        if self.longest_answer < 1:
            raise UserError("must be at least 1", key="task.longest_answer", value=self.longest_answer)

    def head_of(self, names: tuple[str, ...], examples: Examples) -> Labels:
        if self.no_answer is None:
            reason = "without labels it is not known whether a question may have no answer"
            cure = "give task.no_answer=true, or task.no_answer=false"
            raise UserError(reason, key="task.no_answer", value=None, cure=cure)
        return super().head_of(names, examples)

    @property
    def columns(self) -> Sequence[str]:
        return self.question, self.context, self.answers

    @property
    def class_column(self) -> str | None:
        return None

    def head(self, names: tuple[str, ...]) -> Labels:
        return Spans(stride=self.stride, longest=self.longest_answer, no_answer=self.no_answer)

    def names(self, rows: Any) -> tuple[str, ...]:
        return ()

    @property
    def label_columns(self) -> Sequence[str]:
        return (self.answers,)

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        question, context = row[self.question], row[self.context]
        for column, text in ((self.question, question), (self.context, context)):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{column} holds {text!r:.40}, which is no text", "give a question and its context")
        return question.lstrip(), context

    def label_of(
        self, row: Mapping[str, Any], texts: tuple[str, ...], numbers: Mapping[str | int, int]
    ) -> list[tuple[str, int]]:
        context, answers = texts[1], _answers(row[self.answers], self.answers)
        answers = [(text.strip(), start + len(text) - len(text.lstrip())) for text, start in answers]
        for text, start in answers:
            if context[start : start + len(text)] != text:
                place = context.find(text)
                where = "nowhere in" if place < 0 else f"at character {place} of"
                reason = f"the answer {text!r:.60} is not at character {start} of {self.context}, but {where} it"
                raise ValueError(reason, "count characters from 0, or leave the row out")
        return answers


def _answers(value: Any, column: str) -> list[tuple[str, int]]:
    """The texts and starts of answers in either form.

    Raises:
        ValueError: it has another form.
    """
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        pairs = list(zip(texts, starts, strict=False)) if isinstance(texts, list) and isinstance(starts, list) else None
        if pairs is not None and len(texts) != len(starts):  # type: ignore[arg-type]
            raise ValueError(f"{column} holds {len(texts)} texts and {len(starts)} starts")  # type: ignore[arg-type]
    elif isinstance(value, list) and all(isinstance(answer, Mapping) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in value]
    else:
        pairs = None
    is_valid = pairs is not None and all(
        isinstance(t, str) and t.strip() and type(s) is int and s >= 0 for t, s in pairs
    )
    if pairs is None or not is_valid:
        cure = 'give {"text": ["..."], "answer_start": [12]}, or empty lists where there is no answer'
        raise ValueError(f"{column} holds {value!r:.60}, which are no answers", cure)
    return pairs
