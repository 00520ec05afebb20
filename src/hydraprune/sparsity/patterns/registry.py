"""Patterns by their names."""

from __future__ import annotations

import re
from typing import Literal

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns.base import Pattern
from hydraprune.sparsity.patterns.block import Block
from hydraprune.sparsity.patterns.n_of_m import NofM


def _side(text: str) -> int | Literal["channel"]:
    return "channel" if text == "channel" else int(text)


def parse(name: str) -> Pattern:
    """The pattern of that name: `4x1`, `1xchannel`, `2:4`.

    Raises:
        SparsityError: the name is of neither form, or its numbers make no pattern.
    """
    if match := re.fullmatch(r"(\d+):(\d+)", name):
        return NofM(int(match.group(1)), int(match.group(2)))
    if match := re.fullmatch(r"(\d+|channel)x(\d+|channel)", name):
        return Block(_side(match.group(1)), _side(match.group(2)))
    raise SparsityError(f"{name}: not a pattern; a block is written 4x1 or 1xchannel, an N:M pattern 2:4")
