"""Who is asked together with whom? Groups of one shape, so that an answer does not hang on its company."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

# Tokens of a group, at most: enough that asking once costs hardly more than in large batches, in bf16 too. Fewer would
# make it cheaper to ask in every step. Measured in docs/performance.md.
TOKENS = 512


@dataclass(frozen=True)
class Group:
    """Examples to be asked about at once, all of one length.

    Args:
        examples: in the order in which they sit; who was not asked for only keeps a place taken.
        asked: place -> the example there that was asked for.
    """

    examples: list[int]
    asked: dict[int, int]


class Groups:
    """A data set's examples in groups whose shapes do not depend on who is asked for.

    All examples of one length are asked about in groups of one size, without padding, and each of
    them always in the same place. So every product has the same shape, and an example the same rows
    of it, whoever else is in the group: what is computed for it has the same bits, as long as no
    operation looks at one example to compute another, or chooses its way by what numbers it finds.

    Args:
        lengths: tokens of every example of the data set, [examples].
        tokens: a group's at most, unless a single example has more.
    """

    def __init__(self, lengths: Tensor, tokens: int = TOKENS) -> None:
        self._lengths: list[int] = lengths.tolist()
        self._sizes = {
            length: _even(number, max(1, tokens // max(1, length))) for length, number in Counter(self._lengths).items()
        }
        before: Counter[int] = Counter()
        self._places: list[int] = []
        for length in self._lengths:
            self._places.append(before[length] % self._sizes[length])
            before[length] += 1

    def of(self, wanted: Iterable[int]) -> list[Group]:
        """As few groups as have a place for each of these examples, in the order of their first ones."""
        found: dict[tuple[int, int], dict[int, int]] = {}
        taken: Counter[tuple[int, int]] = Counter()
        for example in wanted:
            length, place = self._lengths[example], self._places[example]
            found.setdefault((length, taken[length, place]), {})[place] = example
            taken[length, place] += 1
        return [self._filled(length, asked) for (length, _), asked in found.items()]

    def _filled(self, length: int, asked: dict[int, int]) -> Group:
        anyone = next(iter(asked.values()))
        return Group([asked.get(place, anyone) for place in range(self._sizes[length])], asked)


def _even(number: int, most: int) -> int:
    """The size of equal groups, at most `most`, that hold `number` with the fewest places left over."""
    return -(-number // -(-number // most))
