"""Spans: the answer to a question as a part of its context; extractive question answering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hydraprune.data.labels import Labels, Problem, Rows, inputs_of, kl_divergence
from hydraprune.errors import UserError

# Beside the inputs: the first character of the context that a token covers and the one after its last, -1 for other
# tokens; the rows of each example; and the place of the token that stands for no answer in each row.
_BEGIN, _END, _ROWS, _NONE = "begin", "end", "rows", "none"
# Special tokens of a row, at most; and the least tokens of a row, so that a question has a place.
_SPECIAL, LEAST = 8, 32
# The logit of a token at which no answer starts or ends.
_NEVER = -1e9
# Starts and ends that are combined to spans, as in the evaluation of BERT.
_LIKELIEST = 20


@dataclass(frozen=True)
class Spans(Labels):
    """The answers to a question: parts of its context, or none.

    The texts of an example are question and context; its label is the list of its answers, each a text and the number
    of its first character in the context, empty if the context has no answer. A long context is read in several rows,
    which overlap. An answer that no row holds whole is counted as truncated.

    Args:
        stride: tokens that neighbouring rows share.
        longest: most tokens of an answer.
        no_answer: whether none may be predicted; None: if some question of the set has none.
    """

    names: tuple[str, ...] = ()
    stride: int = 128
    longest: int = 30
    no_answer: bool | None = None

    problem: ClassVar[Problem] = "question answering"
    fewest: ClassVar[int] = 0
    output_per_token: ClassVar[bool] = True
    names_outputs: ClassVar[bool] = False
    varies_rows: ClassVar[bool] = True
    needs_places: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return "answers"

    def width(self, config: Any) -> int:
        return 2

    def form(self, texts: Sequence[tuple[str, ...]]) -> str:
        return f"2 spans {self.stride}"

    def unknown(self, texts: tuple[str, ...]) -> Any:
        return None

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Rows:
        stride = min(self.stride, max_length // 2)
        room = max_length - stride - _SPECIAL
        cut = [_shortened(tokenizer, question, room) for question, _ in texts]
        tokens = tokenizer(
            [question for _, question in cut],
            [context for _, context in texts],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owners = tokens.pop("overflow_to_sample_mapping")
        places = tokens.pop("offset_mapping")
        begin: list[int] = []
        end: list[int] = []
        none = []
        for row, covered in enumerate(places):
            is_context = [part == 1 for part in tokens.sequence_ids(row)]
            begin += [first if inside else -1 for (first, _), inside in zip(covered, is_context, strict=True)]
            end += [last if inside else -1 for (_, last), inside in zip(covered, is_context, strict=True)]
            ids = tokens["input_ids"][row]
            none.append(ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0)
        rows = torch.bincount(torch.tensor(owners), minlength=len(texts)).tolist()
        truncated = sum(was_cut for was_cut, _ in cut)
        return Rows(inputs_of(tokens), {_BEGIN: begin, _END: end, _ROWS: rows, _NONE: none}, truncated)

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        """[rows, 2]: the first and the last token of the first answer; the token for none if the row lacks it."""
        owners = np.repeat(np.arange(len(labels)), flat[_ROWS].numpy())
        begin, end, bounds = flat[_BEGIN].numpy(), flat[_END].numpy(), offsets.numpy()
        found = flat[_NONE].long().unsqueeze(1).repeat(1, 2)
        for row, owner in enumerate(owners.tolist()):
            if answers := labels[owner]:
                text, start = answers[0]
                tokens = slice(bounds[row], bounds[row + 1])
                span = _tokens_of(begin[tokens], end[tokens], start, start + len(text))
                if span is not None:
                    found[row] = torch.tensor(span)
        return found

    def count_lost(self, labels: Sequence[Any], targets: Tensor, beside: Mapping[str, Tensor]) -> int:
        holds = (targets != beside[_NONE].unsqueeze(1)).any(1)
        found = [bool(rows.any()) for rows in torch.split(holds, beside[_ROWS].tolist())]
        return sum(bool(answers) and not held for answers, held in zip(labels, found, strict=True))

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The logits of an answer's start and end at each token, [rows, length, 2]."""
        made = model(**inputs)
        return torch.stack((made.start_logits, made.end_logits), dim=-1)

    def loss(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of start and end over the tokens of a row, the mean of both."""
        return F.cross_entropy(_over_tokens(logits, mask), targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor, mask: Tensor) -> Tensor:
        """KL(teacher || student) at a temperature over the tokens of a row, the mean of start and end."""
        ours, theirs = (_over_tokens(each, mask).transpose(1, 2) for each in (logits, teacher))
        return kl_divergence(ours, theirs, temperature).mean()

    def predictions(self, logits: Tensor, targets: Tensor, mask: Tensor) -> list[Any]:
        """Of each row its tokens' logits, [tokens, 2]."""
        lengths = mask.sum(1).tolist()
        return [row[:length] for row, length in zip(logits.cpu(), lengths, strict=True)]

    def references(self, targets: Tensor) -> list[Any]:
        return [None] * len(targets)

    def collect(self, predictions: list[Any], references: list[Any], data: Any) -> tuple[list[Any], list[Any]]:
        """(the answer to each question, `""` for none; the texts of its answers)."""
        found = []
        first = 0
        allows_none = self.no_answer
        if allows_none is None:
            allows_none = any(answers == [] for answers in data.examples.labels)
        for (_, context), rows in zip(data.examples.texts, data.beside[_ROWS].tolist(), strict=True):
            best, nothing = (-float("inf"), ""), float("inf")
            for row in range(first, first + rows):
                tokens = slice(int(data.offsets[row]), int(data.offsets[row + 1]))
                begin, end = data.beside[_BEGIN][tokens], data.beside[_END][tokens]
                none = int(data.beside[_NONE][row])
                nothing = min(nothing, float(predictions[row][none].sum()))
                score, place = best_span(predictions[row], begin >= 0, self.longest)
                if place is not None and score > best[0]:
                    best = score, context[int(begin[place[0]]) : int(end[place[1]])].strip()
            first += rows
            found.append("" if allows_none and nothing > best[0] else best[1])
        return found, [[text for text, _ in answers or ()] for answers in data.examples.labels]

    def values(self, labels: Iterable[Any]) -> list[float]:
        return []

    def named(self, value: Any) -> Any:
        return value

    def shown(self, texts: tuple[str, ...]) -> dict[str, Any]:
        return {"question": texts[0], "context": texts[1]}


def check_length(max_length: int) -> None:
    """Refuse rows too short for a question and a part of its context.

    Raises:
        UserError: they are.
    """
    if max_length < LEAST:
        reason = f"must be at least {LEAST} tokens for a question and its context"
        raise UserError(reason, key="task.max_length", value=max_length)


def best_span(logits: Tensor, allowed: Tensor, longest: int) -> tuple[float, tuple[int, int] | None]:
    """(score, (first, last token)) of the likeliest span, start logit + end logit; -infinity and None without one.

    Args:
        logits: [tokens, 2], of start and end.
        allowed: [tokens], where a span may start or end.
        longest: most tokens of it.
    """
    starts, ends = (logits[:, side].masked_fill(~allowed, -float("inf")) for side in (0, 1))
    few = min(_LIKELIEST, len(logits))
    first, last = starts.topk(few).indices, ends.topk(few).indices
    length = last.unsqueeze(0) - first.unsqueeze(1)
    scores = starts[first].unsqueeze(1) + ends[last].unsqueeze(0)
    scores = scores.masked_fill((length < 0) | (length >= longest), -float("inf"))
    place = int(scores.argmax())
    best = float(scores.flatten()[place])
    if best == -float("inf"):
        return best, None
    return best, (int(first[place // few]), int(last[place % few]))


def _over_tokens(logits: Tensor, mask: Tensor) -> Tensor:
    """[rows, length, 2] with padding so low that its probability is 0, also when divided by a temperature."""
    return logits.float().masked_fill(~mask.unsqueeze(-1), _NEVER)


def _tokens_of(begin: Any, end: Any, start: int, stop: int) -> tuple[int, int] | None:
    """The first and the last token of some characters of the context; None if a row does not hold all of them.

    Several tokens may be of one character: then the first of them, or the last.

    Args:
        begin, end: [tokens] of a row, arrays.
    """
    inside = np.flatnonzero(begin >= 0)
    if not len(inside) or begin[inside[0]] > start or end[inside[-1]] < stop:
        return None
    covering = inside[(end[inside] > start) & (begin[inside] < stop)]
    return (int(covering[0]), int(covering[-1])) if len(covering) else None


def _shortened(tokenizer: Any, question: str, room: int) -> tuple[bool, str]:
    """(whether it was cut, a question of at most so many tokens)."""
    if len(question.encode("utf-8", "surrogatepass")) <= room:  # a token has a byte at least
        return False, question
    places = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return (True, question[: places[room - 1][1]]) if len(places) > room else (False, question)
