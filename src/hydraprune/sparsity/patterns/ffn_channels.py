"""Whole channels of a feed-forward network: the rows of its first matrix, and the columns of its second."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight, model_block_of
from hydraprune.sparsity.patterns.base import Pattern, Reduce, check_reduce
from hydraprune.sparsity.patterns.block import Block
from hydraprune.sparsity.validation import check_whole

# Of the first matrices, of which a gated network has one of each, and of the second.
_FIRST, _SECOND = ("ffn_in", "ffn_gate"), "ffn_out"
FFN_ROLES = ("ffn_in", "ffn_out")
_JOINT = "ffn_gate_in"


def _network_of(layer: str) -> str:
    """The innermost numbered block that a layer is in; a block of the model may hold several networks in such."""
    match = re.match(r".*\.\d+(?=\.)", layer)
    return match.group(0) if match else model_block_of(layer)


@dataclass(frozen=True)
class FfnChannels:
    """Channels between the two matrices of a feed-forward network are units. Xia et al. 2022, arXiv:2204.00408.

    A unit's score is the mean of those of its rows in the first matrix and of its columns in the second. Biases stay;
    a channel whose column is zero has no effect whatever its bias is. A gated network has two first matrices, and a
    channel is a row of each.

    Args:
        size: how many adjacent channels are one unit. What is left of a network then has a multiple of so many, as
            blocks of as many rows need it.
        reduce: how the scores of one unit combine within a weight: mean, sum or max.

    Raises:
        SparsityError: `size` is no positive whole number, or `reduce` another word.
    """

    size: int = 1
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        check_reduce(self.reduce)

    @property
    def name(self) -> str:
        """As in folder names and reports."""
        return "ffn_channels"

    @property
    def share(self) -> Fraction:
        """The largest element sparsity that the pattern allows."""
        return Fraction(1)

    def couple(self, weights: Sequence[Weight], family: Family) -> Mapping[str, Sequence[tuple[Weight, Pattern]]]:
        """The weights of each feed-forward network, by the name of its block of the model; the second matrix is last.

        Raises:
            SparsityError: a weight has no role in a feed-forward network, or a network lacks one of its matrices, has
                several second ones, or has matrices of different sizes.
        """
        blocks: dict[str, dict[str, list[Weight]]] = {}
        for weight in weights:
            role = family.role_of(weight.layer)
            if role == _JOINT:
                raise SparsityError(
                    f"{weight.layer}: computes channels and their gates in one matrix, which is not cut by channels",
                    cure="choose another pattern, or exclude this network",
                )
            if role not in (*_FIRST, _SECOND):
                raise SparsityError(
                    f"{weight.layer}: is no {' or '.join(FFN_ROLES)} of a {family.name} model",
                    cure="channels of feed-forward networks are pruned in these",
                    setting=("layers.roles", "[ffn]"),
                )
            networks = blocks.setdefault(_network_of(weight.layer), {name: [] for name in FFN_ROLES})
            networks["ffn_in" if role in _FIRST else _SECOND].append(weight)
        return {name: self._members(name, block["ffn_in"], block["ffn_out"]) for name, block in blocks.items()}

    def _members(self, block: str, first: Sequence[Weight], second: Sequence[Weight]) -> list[tuple[Weight, Pattern]]:
        for role, found in zip(FFN_ROLES, (first, second), strict=True):
            if not found:
                raise SparsityError(
                    f"ffn_channels: {block} has no {role} among the chosen layers; a channel goes in both matrices"
                )
        if len(second) > 1:
            raise SparsityError(
                f"ffn_channels: {second[0].layer} and {second[1].layer} both are ffn_out of {block}",
                cure="exclude one of the two networks",
            )
        channels = second[0].view_shape[2]
        for weight in first:
            if weight.view_shape[0] != channels:
                raise SparsityError(
                    f"{weight.layer}: has {weight.view_shape[0]} rows, and {second[0].layer} {channels} columns",
                    cure="exclude this network",
                )
        rows, columns = Block(self.size, "channel", self.reduce), Block("channel", self.size, self.reduce)
        return [*((weight, rows) for weight in first), (second[0], columns)]
