"""Scores of answers to questions, as the evaluation of SQuAD computes them.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250; for questions
without an answer Rajpurkar et al. 2018, "Know What You Don't Know", arXiv:1806.03822.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean over questions of the F1 of the words of an answer, against the closest reference."""
    return _mean(_word_f1, predictions, references)


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of questions whose answer equals a reference, without case, punctuation and articles."""
    return _mean(lambda ours, theirs: float(ours == theirs), predictions, references)


def _mean(
    score: Callable[[list[str], list[str]], float], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    values = []
    for prediction, answers in zip(predictions, references, strict=True):
        words = [_words(answer) for answer in answers]
        # Where every reference is punctuation or an article, or there is none, no answer is the right one.
        right = [each for each in words if each] or [[]]
        values.append(max(score(_words(prediction), each) for each in right))
    return sum(values) / len(values) if values else float("nan")


def _word_f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def _words(text: str) -> list[str]:
    """The words of an answer in lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
