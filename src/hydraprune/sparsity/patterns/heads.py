"""Whole attention heads: the rows of query, key and value, and the columns of the output projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight, model_block_of
from hydraprune.sparsity.patterns.base import Pattern, Reduce, check_reduce
from hydraprune.sparsity.patterns.block import Block

ROLES = ("query", "key", "value", "attention_output")


@dataclass(frozen=True)
class Heads:
    """One attention head is one unit. Michel et al. 2019, arXiv:1905.10650; four roles scored as in Neural Compressor.

    A head's score is the mean of those of its rows in query, key and value and of its columns in
    the output projection. Biases stay; a head whose output columns are zero has no effect whatever
    its biases are. Each of the four weights is pruned by a `Block` of its own.

    Args:
        reduce: how the scores of one head combine within a weight: mean, sum or max.

    Raises:
        SparsityError: `reduce` is another word.
    """

    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        check_reduce(self.reduce)

    @property
    def name(self) -> str:
        """As in folder names and reports."""
        return "heads"

    @property
    def share(self) -> Fraction:
        """The largest element sparsity that the pattern allows."""
        return Fraction(1)

    def couple(self, weights: Sequence[Weight], family: Family) -> Mapping[str, Sequence[tuple[Weight, Pattern]]]:
        """The four weights of each attention block, by the block's name; roles tell which weight is which.

        Raises:
            SparsityError: the family does not name its roles or the number of heads, a block lacks
                one of its weights, or the heads do not divide it.
        """
        if family.heads is None:
            raise SparsityError(f"heads: nothing says how many heads this {family.name} model has")
        blocks: dict[str, dict[str, Weight]] = {}
        for weight in weights:
            role = family.role_of(weight.layer)
            if role not in ROLES:
                raise SparsityError(
                    f"{weight.layer}: is no query, key, value or attention output of a {family.name} model",
                    cure="heads are pruned in these four",
                    setting=("layers.roles", f"[{', '.join(ROLES)}]"),
                )
            blocks.setdefault(model_block_of(weight.layer), {})[role] = weight
        return {block: self._members(block, by_role, family.heads) for block, by_role in blocks.items()}

    def _members(self, block: str, by_role: Mapping[str, Weight], heads: int) -> list[tuple[Weight, Pattern]]:
        if absent := [role for role in ROLES if role not in by_role]:
            raise SparsityError(f"heads: {block} has no {absent[0]} among the chosen layers; a head goes in all four")
        members: list[tuple[Weight, Pattern]] = []
        for role in ROLES:
            weight = by_role[role]
            rows, _, columns = weight.view_shape
            channels = columns if role == "attention_output" else rows
            if channels % heads:
                raise SparsityError(f"{weight.name}: {heads} heads do not divide its {channels} channels")
            width = channels // heads
            output = role == "attention_output"
            members.append(
                (weight, Block("channel", width, self.reduce) if output else Block(width, "channel", self.reduce))
            )
        return members
