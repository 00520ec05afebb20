"""Fixed-shape batches: forward passes whose results for an example do not depend on the rest of the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

# Most tokens of a batch: enough that one pass over a data set costs hardly more than in large batches, in bf16 too.
# With smaller batches it would be cheaper to run the teacher in every step. Measured in docs/performance.md.
TOKENS = 512


@dataclass(frozen=True)
class FixedShapeBatch:
    """Examples of one length for one forward pass.

    Args:
        examples: the example in every row; rows that were not requested hold a copy of another example.
        requested: row -> the requested example in it.
    """

    examples: list[int]
    requested: dict[int, int]


class FixedShapeBatches:
    """Batches of a data set whose shapes do not depend on which examples are requested.

    All examples of one length are computed in batches of one size, without padding, and each example
    always in the same row. So every matrix product has the same shape and an example the same rows
    of it, whatever the other rows hold: its results have the same bits, as long as no operation
    mixes examples or chooses its algorithm by the values that it finds.

    Args:
        lengths: tokens of every example of the data set, [examples].
        tokens: most tokens of a batch, unless a single example has more.
    """

    def __init__(self, lengths: Tensor, tokens: int = TOKENS) -> None:
        self._lengths: list[int] = lengths.tolist()
        self._sizes = {
            length: _even_size(count, max(1, tokens // max(1, length)))
            for length, count in Counter(self._lengths).items()
        }
        seen: Counter[int] = Counter()
        self._rows: list[int] = []
        for length in self._lengths:
            self._rows.append(seen[length] % self._sizes[length])
            seen[length] += 1

    def covering(self, examples: Iterable[int]) -> list[FixedShapeBatch]:
        """As few batches as have a row for each of these examples, in the order of their first ones."""
        found: dict[tuple[int, int], dict[int, int]] = {}
        taken: Counter[tuple[int, int]] = Counter()
        for example in examples:
            length, row = self._lengths[example], self._rows[example]
            found.setdefault((length, taken[length, row]), {})[row] = example
            taken[length, row] += 1
        return [self._filled(length, requested) for (length, _), requested in found.items()]

    def _filled(self, length: int, requested: dict[int, int]) -> FixedShapeBatch:
        filler = next(iter(requested.values()))
        return FixedShapeBatch([requested.get(row, filler) for row in range(self._sizes[length])], requested)


def _even_size(count: int, most: int) -> int:
    """The size of equal batches, at most `most`, that hold `count` examples with the fewest unused rows."""
    return -(-count // -(-count // most))
