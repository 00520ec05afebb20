"""Entities of tagged words, and the metrics that compare them: CoNLL's precision, recall and F1.

A tag is `O`, or a prefix and a type, such as `B-PER`. An entity is a run of words of one type: `B` begins a new one,
and so does another type (IOB1, IOB2); `E` and `L` end one, `S` and `U` are one by themselves (IOBES, BILOU). A tag
without a prefix is a type of its own. As `conlleval` and seqeval's default mode count.
"""

from __future__ import annotations

from collections.abc import Sequence

# (type, first word, last word).
Entity = tuple[str, int, int]
_BEGIN, _END = {"B", "S", "U"}, {"E", "L", "S", "U"}
_OUTSIDE = "O"


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of a sequence of tags."""
    found: set[Entity] = set()
    start: int | None = None
    before, before_type = _OUTSIDE, ""
    for place, tag in enumerate([*tags, _OUTSIDE]):
        prefix, kind = _parts(tag)
        inside = start is not None
        if inside and (prefix in {_OUTSIDE, *_BEGIN} or before in _END or kind != before_type):
            assert start is not None
            found.add((before_type, start, place - 1))
            inside = False
        if prefix != _OUTSIDE and not inside:
            start = place
        elif prefix == _OUTSIDE:
            start = None
        before, before_type = prefix, kind
    return found


def _parts(tag: str) -> tuple[str, str]:
    """(prefix, type) of a tag; one without a prefix continues an entity of its own type."""
    if tag == _OUTSIDE:
        return _OUTSIDE, ""
    prefix, separator, kind = tag.partition("-")
    if separator and len(prefix) == 1:
        return prefix, kind
    return "I", tag


def _counts(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> tuple[int, int, int]:
    """(entities in both, predicted, true)."""
    both = predicted = true = 0
    for ours, theirs in zip(predictions, references, strict=True):
        found, expected = entities(ours), entities(theirs)
        both, predicted, true = both + len(found & expected), predicted + len(found), true + len(expected)
    return both, predicted, true


def entity_precision(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """The share of predicted entities that are true, by type and both ends; 0 without any."""
    both, predicted, _ = _counts(predictions, references)
    return both / predicted if predicted else 0.0


def entity_recall(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """The share of true entities that are predicted; 0 without any."""
    both, _, true = _counts(predictions, references)
    return both / true if true else 0.0


def entity_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """The harmonic mean of precision and recall of entities; 0 without any."""
    both, predicted, true = _counts(predictions, references)
    return 2 * both / (predicted + true) if predicted + true else 0.0


def tag_accuracy(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """The share of words whose tag is right."""
    pairs = [pair for rows in zip(predictions, references, strict=True) for pair in zip(*rows, strict=True)]
    return sum(ours == theirs for ours, theirs in pairs) / len(pairs) if pairs else 0.0
