"""Tasks of the toy language (`hydraprune.data.toy`): questions, choices and running text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hydraprune.data import toy
from hydraprune.data.choice_labels import Choices
from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.span_labels import Spans, check_length
from hydraprune.data.summary import DataSummary, SplitSummary
from hydraprune.data.tasks import ToyTask
from hydraprune.data.token_labels import MaskedTokens, NextTokens

_CHOICES = 3
# What a question asks for, by label.
_ASKED = ("dull", "good")
_END = " . "


@dataclass(frozen=True)
class ToyQuestionTask(ToyTask):
    """Questions about the things in a sentence, such as `the plot ?`; the answer is the opinion on it.

    Every fifth question is about a thing that the sentence does not name, so that it has no answer.
    """

    metrics: ClassVar[tuple[str, ...]] = ("f1", "exact_match")
    head: ClassVar[Labels] = Spans(stride=16)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.max_length)

    def _examples(self, pairs: Sequence[tuple[str, int]]) -> Examples:
        rng = random.Random("toy questions")
        texts, answers = [], []
        for place, (sentence, _) in enumerate(pairs):
            opinions = _opinions(sentence.split())
            absent = [thing for thing in toy.things() if thing not in sentence.split()]
            has_answer = bool(place % 5 and opinions)
            asked = rng.choice(sorted(opinions) if has_answer else absent)
            answers.append([(opinions[asked], sentence.index(opinions[asked]))] if has_answer else [])
            texts.append((f"the {asked} ?", sentence))
        return Examples(texts, answers)


@dataclass(frozen=True)
class ToyChoiceTask(ToyTask):
    """Three sentences, of which one is as good, or as dull, as asked for."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    head: ClassVar[Labels] = Choices(choices=_CHOICES)

    def _examples(self, pairs: Sequence[tuple[str, int]]) -> Examples:
        rng = random.Random("toy choices")
        by_label = [[sentence for sentence, label in pairs if label == wanted] for wanted in (0, 1)]
        texts, labels = [], []
        for sentence, label in pairs:
            # Of very few examples, all may be of one label.
            others = by_label[1 - label] or [sentence]
            choices = [rng.choice(others) for _ in range(_CHOICES - 1)]
            right = rng.randrange(_CHOICES)
            choices.insert(right, sentence)
            texts.append((_ASKED[label], *choices))
            labels.append(right)
        return Examples(texts, labels)


@dataclass(frozen=True)
class ToyTextTask(ToyTask):
    """The sentences as running text whose next tokens are predicted."""

    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "accuracy")
    head: ClassVar[Labels] = NextTokens()

    def load(self) -> TaskData:
        found = super().load()
        sizes = {"train": min(self.train_examples, self.max_train_examples or self.train_examples)}
        sizes["validation"] = self.evaluation_examples
        splits = {name: SplitSummary(read=size, used=size) for name, size in sizes.items()}
        return TaskData(found.train, found.evaluations, self.head, DataSummary(splits, found.summary.digests))

    def _examples(self, pairs: Sequence[tuple[str, int]]) -> Examples:
        return Examples([(_END.join(sentence for sentence, _ in pairs),)], [0])


@dataclass(frozen=True)
class ToyMaskedTextTask(ToyTextTask):
    """The sentences as running text in which hidden tokens are predicted."""

    head: ClassVar[Labels] = MaskedTokens()


def _opinions(words: Sequence[str]) -> dict[str, str]:
    """Thing -> the opinion on it. Things and opinions that occur twice in the sentence are left out."""
    found: dict[str, str] = {}
    tags = toy.tags(words)
    for place, tag in enumerate(tags):
        if tag == "B-THING" and words.count(words[place]) == 1:
            first = next(at for at in range(place, len(tags)) if tags[at] in ("B-GOOD", "B-BAD"))
            rest = [at for at in range(first + 1, len(tags)) if not tags[at].startswith("I-")]
            found[words[place]] = " ".join(words[first : min(rest, default=len(tags))])
    text = " ".join(words)
    return {thing: opinion for thing, opinion in found.items() if text.count(opinion) == 1}
