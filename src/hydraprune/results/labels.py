"""Labels that distinguish runs or cells of the same name, by the overrides in which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydraprune.results.run_spec import RunSpec

# Digits of a hash that are shown if the overrides do not differ.
_HASH_DIGITS = 6


@dataclass(frozen=True)
class Named:
    """A run or cell with its name.

    Args:
        name: equal for those that must be distinguished.
        words: overrides as typed.
        hash: of the run or cell; empty if there is none.
    """

    name: object
    spec: RunSpec
    words: Sequence[str]
    hash: str


def differences(named: Iterable[Named]) -> list[str]:
    """What to add to each name: the overrides that others of this name lack, or a short hash if these do not differ.

    Empty for a name that occurs once. Overrides that only repeat the name are left out: no
    `4x1 at 90% pattern=4x1`.
    """
    items = list(named)
    by_name: dict[object, list[Named]] = {}
    for item in items:
        by_name.setdefault(item.name, []).append(item)
    added: dict[int, str] = {}
    for alike in by_name.values():
        shared = set.intersection(*(set(item.words) for item in alike))
        own = {
            id(item): " ".join(word for word in item.words if word not in shared and not _repeats_name(word, item.spec))
            for item in alike
        }
        counts = Counter(own.values())
        for item in alike:
            words = own[id(item)]
            # Equal overrides may give different configs, if a default has changed in between.
            unique = len(alike) == 1 or (words and counts[words] == 1)
            added[id(item)] = words if unique else f"{words} {item.hash[:_HASH_DIGITS]}".strip()
    return [added[id(item)] for item in items]


def _repeats_name(word: str, spec: RunSpec) -> bool:
    """Whether an override sets what a name states anyway, to the value that it states."""
    key, _, value = word.lstrip("+").partition("=")
    stated = {
        "task": [spec.task],
        "model": [spec.model],
        "pattern": [spec.pattern, spec.pattern.replace(":", "of")],
        "seed": [str(spec.seed)],
    }
    return value in stated.get(key, [])
