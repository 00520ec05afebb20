"""Weights that are pruned together: one by itself, or several whose units are one, as of an attention head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.patterns.ffn_channels import FfnChannels
from hydraprune.sparsity.patterns.heads import Heads

# How weights can be coupled: each by itself, or several in units of their own kind.
Coupling = Pattern | Heads | FfnChannels


@dataclass(frozen=True)
class Member:
    """A weight and the pattern by which it is pruned."""

    weight: Weight
    pattern: Pattern

    @property
    def units(self) -> int:
        """How many units the weight has."""
        return self.pattern.units(self.weight.view_shape)

    @property
    def values(self) -> Tensor:
        """The view of the weight as it is now, without a graph; of a sharded one, of what this process holds."""
        return self.weight.view(self.weight.held)

    def empty(self, tensor: Tensor) -> Tensor:
        """Which units are pruned in a tensor shaped like the weight, or what is held of it: bool, flat [units]."""
        return self.pattern.empty_units(self.weight.view(tensor) != 0)


@dataclass(frozen=True)
class Structure:
    """Members that are pruned together: unit i of each goes when unit i of one does."""

    name: str
    members: tuple[Member, ...]

    @property
    def units(self) -> int:
        """How many units the structure has; each member has as many."""
        return self.members[0].units

    @property
    def total(self) -> int:
        """How many weights it has."""
        return sum(member.weight.parameter.numel() for member in self.members)

    @property
    def unit_zeros(self) -> int:
        """How many weights one pruned unit sets to zero."""
        return sum(m.pattern.unit_zeros(m.weight.view_shape) for m in self.members)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its first weight: channels, and those of a kernel; of one expert, where it holds several."""
        weight = self.members[0].weight
        shape = tuple(weight.parameter.shape)
        return shape[1:] if weight.packed > 1 else shape

    def cost(self, cells: Sequence[Tensor]) -> Tensor:
        """Cells of each member -> what pruning each unit would lose, flat [units]: the members' mean."""
        costs = [member.pattern.cost(scores) for member, scores in zip(self.members, cells, strict=True)]
        return costs[0] if len(costs) == 1 else torch.stack(costs).mean(0)

    def empty(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Which units are pruned in all members of the tensors given by parameter name: bool, flat [units]."""
        empties = [member.empty(tensors[member.weight.name]) for member in self.members]
        return empties[0] if len(empties) == 1 else torch.stack(empties).all(0)


def structures_of(pattern: Coupling, weights: Sequence[Weight], family: Family) -> tuple[Structure, ...]:
    """The structures into which a pattern couples some weights.

    Raises:
        SparsityError: the pattern cannot couple them.
    """
    coupled = pattern.couple(weights, family)
    return tuple(Structure(name, tuple(Member(*member) for member in members)) for name, members in coupled.items())
