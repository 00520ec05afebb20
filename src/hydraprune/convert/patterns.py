"""What do their pattern names mean in ours? `tile_pattern_4x1`, `2:4`, `mha`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from hydraprune.convert.schema import Entry

_FORMS = "must be a block such as 4x1 or 1xchannel, N:M such as 2:4 (N removed of every M), or mha"


@dataclass(frozen=True)
class Shape:
    """A pattern in our words.

    Args:
        name: theirs, without what stands before the last underscore.
        word: the file of conf/pattern that has it.
        keys: what that file needs to be told.
        share: the largest sparsity that it allows; None for blocks and heads, which allow any.
        sides: of a block, in numbers and the word `channel`.
    """

    name: str
    word: str
    keys: dict[str, int | str] = field(default_factory=dict)
    share: Fraction | None = None
    sides: tuple[str, ...] = ()


def shape_of(entry: Entry) -> Shape:
    """The pattern of an entry.

    Raises:
        UserError: it is no pattern.
    """
    name = entry["pattern"].rpartition("_")[2]
    if name == "mha":
        return Shape(name, "heads")
    if match := re.fullmatch(r"(\d+):(\d+)", name):
        removed, of = int(match.group(1)), int(match.group(2))
        if not 0 < removed < of:
            raise entry.wrong("pattern", "N of N:M, the weights removed, must be above 0 and below M")
        keep = of - removed
        share = Fraction(removed, of)
        if (keep, of) == (2, 4):
            return Shape(name, "2of4", share=share)
        return Shape(name, "nm", {"keep": keep, "of": of}, share)
    if match := re.fullmatch(r"(\d+|channel)x(\d+|channel)", name):
        sides = match.groups()
        if sides == ("channel", "channel"):
            raise entry.wrong("pattern", "that is the whole layer; make one side a number, such as 1xchannel")
        if any(side.isdigit() and int(side) == 0 for side in sides):
            raise entry.wrong("pattern", "a block's sides must be above 0")
        rows, cols = (side if side == "channel" else int(side) for side in sides)
        known = f"{rows}x{cols}"
        if known in ("1x1", "4x1", "1xchannel", "channelx1"):
            return Shape(name, known, sides=sides)
        return Shape(name, "block", {"rows": rows, "cols": cols}, sides=sides)
    raise entry.wrong("pattern", _FORMS)
