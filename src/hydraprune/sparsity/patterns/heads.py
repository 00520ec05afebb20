"""Whole attention heads: the rows of query, key and value, and the columns of the output projection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.patterns import Block, Reduce

ROLES = ("query", "key", "value", "attention_output")


@dataclass(frozen=True)
class Heads:
    """One attention head is one unit. Michel et al. 2019, arXiv:1905.10650; four roles scored as in Neural Compressor.

    A head's score is the mean of those of its rows in query, key and value and of its columns in
    the output projection. Biases stay; a head whose output columns are zero has no effect whatever
    its biases are.

    Args:
        reduce: how the scores of one head combine within a weight: mean, sum or max.
    """

    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        Block(1, 1, self.reduce)

    @property
    def name(self) -> str:
        """What folders and reports call it."""
        return "heads"

    @property
    def share(self) -> Fraction:
        """The largest element sparsity that the pattern allows."""
        return Fraction(1)

    def structures(self, weights: Sequence[Weight], family: Family) -> tuple[Structure, ...]:
        """One structure for each attention block; the four weights of a block are told by their roles.

        Raises:
            SparsityError: the family does not say its roles or how many heads there are, a block
                lacks one of its weights, or the heads do not divide it.
        """
        if family.heads is None:
            raise SparsityError(f"heads: nothing says how many heads this {family.name} model has")
        blocks: dict[str, dict[str, Weight]] = {}
        for weight in weights:
            layer = weight.name.removesuffix(".weight")
            role = family.role_of(layer)
            if role not in ROLES:
                raise SparsityError(
                    f"{layer}: is no query, key, value or attention output of a {family.name} model; heads are cut "
                    f"from these four: layers.roles=[{', '.join(ROLES)}]"
                )
            blocks.setdefault(block_of(layer), {})[role] = weight
        return tuple(self._structure(block, found, family.heads) for block, found in blocks.items())

    def _structure(self, block: str, found: dict[str, Weight], heads: int) -> Structure:
        if absent := [role for role in ROLES if role not in found]:
            raise SparsityError(f"heads: {block} has no {absent[0]} among the chosen layers; a head goes in all four")
        members = []
        for role in ROLES:
            rows, _, columns = found[role].view_shape
            side = columns if role == "attention_output" else rows
            if side % heads:
                raise SparsityError(f"{found[role].name}: {heads} heads do not divide its {side} channels")
            width = side // heads
            cut = Block("channel", width) if role == "attention_output" else Block(width, "channel")
            members.append(Member(found[role], Block(cut.rows, cut.cols, self.reduce)))
        return Structure(block, tuple(members))


def block_of(layer: str) -> str:
    """The name of a layer up to its first number, `encoder.layer.3` of `encoder.layer.3.output.dense`; or nothing."""
    match = re.match(r".*?\.\d+(?=\.)|\d+(?=\.)", layer)
    return match.group(0) if match else ""
