"""A toy sentiment language whose labels depend on word order and composition.

The language is made of short English sentences about a film, labelled 1 (positive) or
0 (negative).  It needs no download, so it serves tests, examples and smoke runs.  A bag
of words says little about the label (a unigram logistic regression scores below 0.6):
what decides is how the words are put together.  There are more than 10**10 sentences.

A **clause** such as ``the plot was not very good`` has a signed strength:

* the adjective gives a sign and a strength (*good* +2, *superb* +4, *poor* -2, ...);
* an intensifier (*very*) doubles the strength and a diminisher (*slightly*) halves it;
* a minimiser (*hardly*) turns the sign and halves the strength;
* each *not* or *never* turns the sign, so that *never not good* is positive.

Clauses are combined, and combinations nest:

* ``A but B`` and ``A yet B`` mean B; ``although A , B`` and ``B though A`` mean B too;
* ``A and B`` means the stronger of the two (their sum; ties are never generated);
* ``everyone said that S`` means S, and ``nobody said that S`` means its opposite.

Every sentence has one reading, and there is no label noise.  Rare deep combinations are
what keeps a small model below a perfect score.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

__all__ = ["TAGS", "generate", "tags", "things", "vocabulary"]

# Of things, and of opinions with their polarity.
TAGS = ("O", "B-THING", "B-GOOD", "I-GOOD", "B-BAD", "I-BAD")

_SUBJECTS = (
    "acting", "camera", "cast", "costume", "dialogue", "director", "drama", "ending",
    "film", "humour", "movie", "music", "opening", "plot", "scenery", "script", "song",
    "story", "villain", "voice",
)  # fmt: skip
_VERBS = ("felt", "is", "looked", "seemed", "was")
_ADJECTIVES = {
    **dict.fromkeys(("charming", "clever", "fresh", "fun", "good", "nice"), 2),
    **dict.fromkeys(("brilliant", "gorgeous", "perfect", "superb", "wonderful"), 4),
    **dict.fromkeys(("boring", "clumsy", "dull", "poor", "silly", "weak"), -2),
    **dict.fromkeys(("awful", "dreadful", "horrible", "terrible", "unbearable"), -4),
}
_INTENSIFIERS = ("deeply", "really", "truly", "very")
_DIMINISHERS = ("mildly", "slightly", "somewhat")
_MINIMISERS = ("barely", "hardly", "scarcely")
_NEGATIONS = ("never", "not")
_AFFIRMING = ("critics", "everyone")
_DENYING = ("nobody", "none")
_SAYING = ("claimed", "said", "thought")
_CONTRASTS = ("but", "yet")
_GLUE = (",", "although", "and", "that", "the", "though")

# How often each choice is taken, in percent.
_NEGATION_COUNT = {0: 58, 1: 32, 2: 10}
_MODIFIER = {"none": 52, "intensifier": 20, "diminisher": 18, "minimiser": 10}
_SHAPE = {"clause": 27, "contrast": 35, "and": 14, "framed": 13, "nested": 11}

# A phrase: its words and its signed strength (never 0).
_Phrase = tuple[list[str], int]
_Rule = Callable[[random.Random], _Phrase]
_Key = TypeVar("_Key")


def vocabulary() -> tuple[str, ...]:
    """Return every word that the grammar can emit, sorted and without repeats."""
    groups = (
        _SUBJECTS, _VERBS, tuple(_ADJECTIVES), _INTENSIFIERS, _DIMINISHERS, _MINIMISERS,
        _NEGATIONS, _AFFIRMING, _DENYING, _SAYING, _CONTRASTS, _GLUE,
    )  # fmt: skip
    return tuple(sorted({word for group in groups for word in group}))


def things() -> tuple[str, ...]:
    """Return every word for what a sentence speaks of."""
    return _SUBJECTS


def tags(words: Sequence[str]) -> list[str]:
    """A tag of `TAGS` for each word: a subject is a thing; an adjective with its modifiers is an opinion.

    The polarity is that of the clause: negations and minimisers before the adjective turn it.
    """
    found = ["O"] * len(words)
    start: int | None = None
    turned = False
    for place, word in enumerate(words):
        if word in _SUBJECTS:
            found[place] = "B-THING"
        is_modifier = word in (*_NEGATIONS, *_INTENSIFIERS, *_DIMINISHERS, *_MINIMISERS)
        if is_modifier:
            start = place if start is None else start
            turned ^= word in (*_NEGATIONS, *_MINIMISERS)
        elif word in _ADJECTIVES:
            kind = "GOOD" if (_ADJECTIVES[word] > 0) != turned else "BAD"
            first = place if start is None else start
            found[first : place + 1] = [f"B-{kind}", *[f"I-{kind}"] * (place - first)]
        if not is_modifier:
            start, turned = None, False
    return found


def generate(train: int, evaluation: int = 2000, seed: int = 0) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Draw a training list and an evaluation list of ``(sentence, label)`` pairs.

    The evaluation sentences are all distinct and depend on ``evaluation`` and ``seed``
    only.  None of them occurs in the training list, which may repeat a sentence now and
    then.  A longer training list begins with the shorter one of the same arguments.

    Args:
        train: how many training pairs, at least 1.
        evaluation: how many evaluation pairs, at least 1.
        seed: which language sample to draw; equal arguments give equal lists.

    Returns:
        The training pairs and the evaluation pairs.

    Raises:
        ValueError: ``train`` or ``evaluation`` is below 1.
    """
    for name, value in (("train", train), ("evaluation", evaluation)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    rng = random.Random(f"toy evaluation {seed}")
    held_out: dict[str, int] = {}
    while len(held_out) < evaluation:
        sentence, label = _draw(rng)
        held_out.setdefault(sentence, label)
    rng = random.Random(f"toy train {seed}")
    training: list[tuple[str, int]] = []
    while len(training) < train:
        sentence, label = _draw(rng)
        if sentence not in held_out:
            training.append((sentence, label))
    return training, list(held_out.items())


def _draw(rng: random.Random) -> tuple[str, int]:
    """Draw one sentence and its label."""
    words, strength = _SHAPES[_pick(rng, _SHAPE)](rng)
    return " ".join(words), int(strength > 0)


def _pick(rng: random.Random, weights: Mapping[_Key, int]) -> _Key:
    """Draw one key of ``weights`` with a probability in proportion to its value."""
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def _clause(rng: random.Random) -> _Phrase:
    """``the plot was never hardly good``."""
    adjective = rng.choice(tuple(_ADJECTIVES))
    strength = _ADJECTIVES[adjective]
    words = ["the", rng.choice(_SUBJECTS), rng.choice(_VERBS)]
    count = _pick(rng, _NEGATION_COUNT)
    words += rng.sample(_NEGATIONS, count)
    if count % 2:
        strength = -strength
    modifier = _pick(rng, _MODIFIER)
    if modifier == "intensifier":
        words.append(rng.choice(_INTENSIFIERS))
        strength *= 2
    elif modifier == "diminisher":
        words.append(rng.choice(_DIMINISHERS))
        strength //= 2
    elif modifier == "minimiser":
        words.append(rng.choice(_MINIMISERS))
        strength //= -2
    return [*words, adjective], strength


def _contrast(rng: random.Random, part: _Rule = _clause) -> _Phrase:
    """``A but B``, ``although A , B`` or ``B though A``, where B is a ``part``: B decides."""
    (aside, _), (main, strength) = _clause(rng), part(rng)
    form = rng.randrange(3)
    if form == 0:
        return [*aside, rng.choice(_CONTRASTS), *main], strength
    if form == 1:
        return ["although", *aside, ",", *main], strength
    return [*main, "though", *aside], strength


def _both(rng: random.Random) -> _Phrase:
    """``A and B``: the stronger one decides; a tie is drawn again."""
    while True:
        (left, one), (right, two) = _clause(rng), _clause(rng)
        if one + two != 0:
            return [*left, "and", *right], one + two


def _framed(rng: random.Random) -> _Phrase:
    """``nobody said that S``: the opposite of S; ``everyone said that S``: S."""
    inner = _clause if rng.random() < 0.7 else _contrast
    words, strength = inner(rng)
    sign = rng.choice((1, -1))
    who = rng.choice(_AFFIRMING if sign > 0 else _DENYING)
    return [who, rng.choice(_SAYING), "that", *words], sign * strength


def _nested(rng: random.Random) -> _Phrase:
    """A contrast whose main part is itself a combination."""
    return _contrast(rng, rng.choice((_contrast, _both, _framed)))


_SHAPES: dict[str, _Rule] = {
    "clause": _clause,
    "contrast": _contrast,
    "and": _both,
    "framed": _framed,
    "nested": _nested,
}
