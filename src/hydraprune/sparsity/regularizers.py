"""What draws units towards zero before they are pruned? Penalties on whole units, as proximal steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.patterns import Block


class Regularizer(ABC):
    """Acts on the weights after each optimizer step of the pruning window."""

    @abstractmethod
    def check(self, structures: Sequence[Structure]) -> None:
        """Refuse structures that it cannot act on.

        Raises:
            SparsityError: naming the pattern, and what would fit.
        """

    @abstractmethod
    def shrink(self, structures: Sequence[Structure], optimizer: Optimizer | None) -> None:
        """Make one step, in place; the optimizer has just made its own."""


@dataclass(frozen=True)
class Unregularized(Regularizer):
    """No penalty."""

    def check(self, structures: Sequence[Structure]) -> None:
        """Everything fits."""

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
        if isinstance(self.strength, bool) or not 0.0 < self.strength < float("inf"):
            raise SparsityError(f"strength={self.strength}: must be above 0; regularizer=none does without")

    def check(self, structures: Sequence[Structure]) -> None:
        for structure in structures:
            for member in structure.members:
                if not isinstance(member.pattern, Block):
                    raise SparsityError(
                        f"regularizer=group_lasso: shrinks whole blocks, and {member.pattern.name} has none; use a "
                        f"block or channel pattern, or regularizer=none"
                    )

    def shrink(self, structures: Sequence[Structure], optimizer: Optimizer | None) -> None:
        if optimizer is None:
            raise SparsityError("regularizer=group_lasso: needs the learning rate; call project(step, optimizer)")
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
    block = member.pattern
    assert isinstance(block, Block)
    values = member.weight.view(member.weight.parameter.detach()).float()
    return Block(block.rows, block.cols, "sum").pool(values.square()).flatten()


def _scale(member: Member, factor: Tensor) -> None:
    """Multiply each unit of a weight by its factor, in place."""
    parameter, weight = member.weight.parameter.detach(), member.weight
    block = member.pattern
    assert isinstance(block, Block)
    spread = block.spread(factor, weight.view_shape)
    parameter.mul_(weight.layout.weight(spread, parameter.shape).to(parameter.dtype))
