"""What is pruned together? A weight by itself, or several whose units are one: an attention head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.patterns import Pattern


@dataclass(frozen=True)
class Member:
    """A weight and the pattern by which it is cut."""

    weight: Weight
    pattern: Pattern

    @property
    def units(self) -> int:
        """Units of the weight."""
        return self.pattern.units(self.weight.view_shape)

    def empty(self, tensor: Tensor) -> Tensor:
        """Which units of a tensor shaped like the parameter are zero as far as the pattern asks: bool, flat [units]."""
        return self.pattern.empty_units(self.weight.view(tensor) != 0)


@dataclass(frozen=True)
class Structure:
    """Members that are pruned together: unit i of each goes when unit i of one does."""

    name: str
    members: tuple[Member, ...]

    @property
    def units(self) -> int:
        """Units of the structure, which each member has as many of."""
        return self.members[0].units

    @property
    def total(self) -> int:
        """Weights in it."""
        return sum(member.weight.parameter.numel() for member in self.members)

    @property
    def unit_zeros(self) -> int:
        """How many weights one pruned unit sets to zero."""
        return sum(m.pattern.unit_zeros(m.weight.view_shape) for m in self.members)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sizes of the axes of its first weight: channels, and those of a kernel."""
        return tuple(self.members[0].weight.parameter.shape)

    def cost(self, cells: Sequence[Tensor]) -> Tensor:
        """Cells of each member -> what pruning each unit would lose, flat [units]: the members' mean."""
        costs = [member.pattern.cost(part) for member, part in zip(self.members, cells, strict=True)]
        return costs[0] if len(costs) == 1 else torch.stack(costs).mean(0)

    def empty(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Which units are pruned in all members of the tensors given by parameter name: bool, flat [units]."""
        empties = [member.empty(tensors[member.weight.name]) for member in self.members]
        return empties[0] if len(empties) == 1 else torch.stack(empties).all(0)


def apart(weights: Sequence[Weight], pattern: Pattern) -> tuple[Structure, ...]:
    """Every weight a structure of its own."""
    return tuple(Structure(weight.name, (Member(weight, pattern),)) for weight in weights)
