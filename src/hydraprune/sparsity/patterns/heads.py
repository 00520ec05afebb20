"""Whole attention heads: the rows of query, key and value, and the columns of the output projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import JointLayout, Weight, model_block_of
from hydraprune.sparsity.patterns.attention import JOINT, ROLES, Attention, attentions_of, partner
from hydraprune.sparsity.patterns.base import Pattern, Reduce, check_reduce
from hydraprune.sparsity.patterns.block import Block

__all__ = ["ROLES", "Heads"]

# Of a joint projection.
_PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class Heads:
    """One attention head is one unit. Michel et al. 2019, arXiv:1905.10650; four roles scored as in Neural Compressor.

    A head's score is the mean of those of its rows in query, key and value and of its columns in
    the output projection. Biases stay; a head whose output columns are zero has no effect whatever
    its biases are. Each of the four weights is pruned by a `Block` of its own.

    In grouped-query attention, where key and value have fewer heads than query, a unit is a
    key-value head with all the query heads that read it. The number of query heads is the
    family's (`Family.heads`); that of key-value heads follows from the shapes of the weights.
    Self- and cross-attention of one layer are two attentions, each with heads of its own.
    Of a joint projection of query, key and value a unit has the rows of all three; `Family.joint` says where they are.

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
        """The four weights of each attention, by its name; roles tell which weight is which.

        Raises:
            SparsityError: the family does not name its roles or the number of heads, an attention lacks
                one of its weights or has one twice, the shapes are not those of so many heads, or an
                attention's module has another number of heads.
        """
        if family.heads is None:
            raise SparsityError(f"heads: nothing says how many heads this {family.name} model has")
        roles: list[tuple[str, Weight]] = []
        for weight in weights:
            role = family.role_of(weight.layer)
            if role not in (*ROLES, JOINT):
                raise SparsityError(
                    f"{weight.layer}: is no query, key, value or attention output of a {family.name} model",
                    cure="heads are pruned in these four",
                    setting=("layers.roles", f"[{', '.join(ROLES)}]"),
                )
            roles.append((role, weight))
        joint = [weight for role, weight in roles if role == JOINT]
        together = {model_block_of(weight.layer): self._joint(weight, roles, family) for weight in joint}
        if len(together) < len(joint):
            raise SparsityError("heads: a block of the model has two joint projections", cure="exclude one of the two")
        attentions = attentions_of([(role, w) for role, w in roles if model_block_of(w.layer) not in together])
        coupled = {attention.name: self._members(attention, family.heads) for attention in attentions}
        for attention in attentions:
            attention.check_heads(family.heads)
        return {**together, **coupled}

    def _joint(
        self, weight: Weight, weights: Sequence[tuple[str, Weight]], family: Family
    ) -> list[tuple[Weight, Pattern]]:
        """A joint projection and the output projection of the same attention."""
        assert family.heads is not None
        output = partner("attention_output", weight, weights)
        (rows, positions, _), channels = weight.view_shape, output.view_shape[2]
        if family.joint is None or rows != len(_PARTS) * channels or channels % family.heads or positions > 1:
            raise SparsityError(
                f"{weight.layer}: how its {rows} rows are those of query, key and value of {family.heads} heads is not "
                "known",
                cure="exclude this attention",
            )
        width = channels // family.heads
        first = replace(weight, layout=JointLayout(weight.layout, len(_PARTS))) if family.joint == "parts" else weight
        height = width if family.joint == "parts" else len(_PARTS) * width
        return [(first, self._block("query", height)), (output, self._block("attention_output", width))]

    def _members(self, attention: Attention, heads: int) -> list[tuple[Weight, Pattern]]:
        _, widths = attention.units(heads)
        return [(attention.weights[role], self._block(role, width)) for role, width in widths.items()]

    def _block(self, role: str, width: int) -> Block:
        if role == "attention_output":
            return Block("channel", width, self.reduce)
        return Block(width, "channel", self.reduce)
