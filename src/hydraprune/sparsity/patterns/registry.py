"""Patterns by their names: blocks, N:M, and those that a user has registered."""

from __future__ import annotations

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.patterns.base import Pattern, ViewShape
from hydraprune.sparsity.patterns.block import Block
from hydraprune.sparsity.patterns.n_of_m import NofM

# Powers of two, since those are what hardware and papers use; with the weights of one block.
_SIDES = (32, 16, 8, 4, 2, 1)
_BLOCKS = [(rows * cols, Block(rows, cols)) for rows in _SIDES for cols in _SIDES if (rows, cols) != (1, 1)]
_GROUPS = [NofM(1, 8), NofM(1, 4), NofM(2, 8), NofM(1, 2), NofM(2, 4), NofM(4, 8), NofM(3, 4), NofM(6, 8)]
_registered: dict[str, Pattern] = {}


def register(*patterns: Pattern) -> None:
    """Make patterns of your own known by their names: to `parse`, `layer_sparsity`, `verify` and the results page.

    Raises:
        SparsityError: the name is that of a block or N:M pattern, or of another registered pattern.
    """
    for pattern in patterns:
        known = _parsed(pattern.name) or _registered.get(pattern.name, pattern)
        if known != pattern:
            raise SparsityError(f"there is another pattern of this name, {known!r}", key="pattern", value=pattern.name)
        _registered[pattern.name] = pattern


def unregister(name: str) -> None:
    """Forget a registered pattern; no error where there is none of that name."""
    _registered.pop(name, None)


def parse(name: str) -> Pattern:
    """The pattern of that name: `4x1`, `1xchannel`, `2:4`, or a registered one.

    Raises:
        SparsityError: no pattern has this name, or its numbers make no pattern.
    """
    if not isinstance(name, str):
        raise SparsityError("must be the name of a pattern, as 4x1 or 2:4", key="pattern", value=name)
    pattern = _parsed(name) or _registered.get(name)
    if pattern is None:
        registered = f"; registered: {', '.join(_registered)}" if _registered else ""
        raise SparsityError(
            "not a pattern",
            key=name,
            cure=f"a block is written 4x1 or 1xchannel, an N:M pattern 2:4{registered}",
        )
    return pattern


def _parsed(name: str) -> Pattern | None:
    return NofM.parse(name) or Block.parse(name)


def candidates(shape: ViewShape) -> list[Pattern]:
    """Patterns to look for in a weight whose view has `shape`: channels, blocks from large to small, N:M groups.

    A registered pattern comes before blocks of its size, and before N:M groups where a pruned unit keeps some weights.
    """
    own = [pattern for pattern in _registered.values() if pattern.misfit(shape) is None]
    sized: list[tuple[int, Pattern]] = [(p.unit_zeros(shape), p) for p in own if not p.scores_weights]
    whole = [pattern for _, pattern in sorted([*sized, *_BLOCKS], key=lambda item: -item[0])]
    partial = [pattern for pattern in own if pattern.scores_weights]
    return [Block(1, "channel"), Block("channel", 1), *whole, *partial, *_GROUPS]
