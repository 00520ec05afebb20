"""Pattern names of Neural Compressor (`tile_pattern_4x1`, `2:4`, `mha`) as patterns of our config."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from hydraprune.convert.schema import Entry

_FORMS = "must be a block such as 4x1 or 1xchannel, N:M such as 2:4 (N removed of every M), or mha"


@dataclass(frozen=True)
class Shape:
    """A pattern of our config.

    Args:
        name: in Neural Compressor, without the prefix up to the last underscore.
        word: the value of `pattern=`.
        keys: the keys below `pattern` that it needs.
        share: the largest sparsity that it allows; None for blocks and heads, which allow any.
        sides: of a block, numbers and the word `channel`.
    """

    name: str
    word: str
    keys: dict[str, int | str] = field(default_factory=dict)
    share: Fraction | None = None
    sides: tuple[str, ...] = ()


def shape_of(entry: Entry) -> Shape:
    """The pattern of an entry.

    Raises:
        UserError: it is not a pattern.
    """
    name = entry["pattern"].rpartition("_")[2]
    if name == "mha":
        return Shape(name, "heads")
    if match := re.fullmatch(r"(\d+):(\d+)", name):
        removed, of = int(match.group(1)), int(match.group(2))
        if not 0 < removed < of:
            raise entry.error("pattern", "N of N:M, the weights removed, must be above 0 and below M")
        keep = of - removed
        share = Fraction(removed, of)
        if (keep, of) == (2, 4):
            return Shape(name, "2of4", share=share)
        return Shape(name, "nm", {"keep": keep, "of": of}, share)
    if match := re.fullmatch(r"(\d+|channel)x(\d+|channel)", name):
        sides = match.groups()
        if sides == ("channel", "channel"):
            raise entry.error("pattern", "this is the whole layer", cure="make one side a number, such as 1xchannel")
        if any(side.isdigit() and int(side) == 0 for side in sides):
            raise entry.error("pattern", "a block's sides must be above 0")
        rows, cols = (side if side == "channel" else int(side) for side in sides)
        known = f"{rows}x{cols}"
        if known in ("1x1", "4x1", "1xchannel", "channelx1"):
            return Shape(name, known, sides=sides)
        return Shape(name, "block", {"rows": rows, "cols": cols}, sides=sides)
    raise entry.error("pattern", _FORMS)
