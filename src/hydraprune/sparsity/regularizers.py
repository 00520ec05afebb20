"""Regularizers that draw units towards zero before they are pruned: penalties on whole units, as proximal steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.validation import check_number


class Regularizer(ABC):
    """Acts on the weights after each optimizer step of the pruning window."""

    # Whether it does anything.
    acts: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """The word for it, as in `regularizer=group_lasso`."""

    @abstractmethod
    def check(self, structures: Sequence[Structure]) -> None:
        """Refuse structures that it cannot act on.

        Raises:
            SparsityError: with the pattern, and what would fit.
        """

    @abstractmethod
    def shrink(self, structures: Sequence[Structure], optimizer: Optimizer | None) -> None:
        """Take one step, in place, after the optimizer's own.

        Raises:
            SparsityError: it needs the optimizer and there is none.
        """


@dataclass(frozen=True)
class Unregularized(Regularizer):
    """No penalty."""

    acts = False

    @property
    def name(self) -> str:
        return "none"

    def check(self, structures: Sequence[Structure]) -> None:
        """Every structure fits."""

    def shrink(self, structures: Sequence[Structure], optimizer: Optimizer | None) -> None:
        """Nothing is done."""


@dataclass(frozen=True)
class GroupLasso(Regularizer):
    """Every unit b shrinks by the factor max(0, 1 - lr * strength * sqrt(n_b) / ||w_b||), n_b its weights.

    The proximal step of the penalty strength * sum_b sqrt(n_b) ||w_b||: Yuan and Lin 2006 (model
    selection with grouped variables); Parikh and Boyd 2014, proximal algorithms, section 6.5.4.

    Args:
        strength: the penalty's factor, above 0.

    Raises:
        SparsityError: it is not.
    """

    strength: float = 1e-3

    def __post_init__(self) -> None:
        check_number("strength", self.strength, 0, math.inf, cure="use regularizer=none for no penalty")

    @property
    def name(self) -> str:
        return "group_lasso"

    def check(self, structures: Sequence[Structure]) -> None:
        for structure in structures:
            for member in structure.members:
                if member.pattern.scores_weights:
                    raise SparsityError(
                        f"shrinks whole blocks, and {member.pattern.name} has none",
                        key="regularizer",
                        value="group_lasso",
                        cure="use a block or channel pattern, or regularizer=none",
                    )

    def shrink(self, structures: Sequence[Structure], optimizer: Optimizer | None) -> None:
        if optimizer is None:
            raise SparsityError(
                "needs the learning rate",
                key="regularizer",
                value="group_lasso",
                cure="call project(step, optimizer)",
            )
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        for structure in structures:
            squares = torch.stack([_squares(member) for member in structure.members]).sum(0)
            amount = self.strength * structure.unit_zeros**0.5
            for member in structure.members:
                rate = rates.get(id(member.weight.parameter), 0.0)
                factor = (1 - rate * amount / squares.sqrt().clamp(min=torch.finfo(squares.dtype).tiny)).clamp(min=0)
                _scale(member, factor)


def _squares(member: Member) -> Tensor:
    """Sum of squares of each unit, flat [units]."""
    return member.pattern.sum_cells(member.values.float().square()).flatten()


def _scale(member: Member, factor: Tensor) -> None:
    """Multiply each unit of a weight by its factor, in place."""
    parameter = member.weight.parameter.detach()
    spread = member.pattern.spread(factor, member.weight.view_shape)
    parameter.mul_(member.weight.unview(spread).to(parameter.dtype))
