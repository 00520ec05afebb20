"""Whether a saved state is that of a pruner with the same plan and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.shards import Shards

# Keys that states of earlier versions do not have.
_NEWER = ("plan", "fixed", "intermittent")
# What two pruners share of which one may go on with the state of the other.
_OF_A_PLAN = ("pattern", "selection", "criterion", "schedule", "transition", "regularizer")


@dataclass(frozen=True)
class StateCheck:
    """What a state must fit. Arguments: see `Pruner`."""

    pruner: str
    plan: Plan
    updates: Updates
    structures: tuple[Structure, ...]

    def description(self) -> dict[str, str]:
        """The plan, its updates and its weights in words, which a state carries."""
        described = {key: describe(getattr(self.plan, key)) for key in _OF_A_PLAN}
        updates = f"{self.updates.start} to {self.updates.last} every {self.updates.frequency}"
        layers = [member.weight.name for structure in self.structures for member in structure.members]
        return {**described, "updates": updates, "layers": ", ".join(layers)}

    def refuse_other_plan(self, state: Mapping[str, Any], keys: Sequence[str]) -> None:
        """Refuse what is no state, or that of a pruner with another plan. States of earlier versions name no plan.

        Args:
            keys: those of a state of this pruner.
        """
        if absent := [key for key in keys if key not in state and key not in _NEWER]:
            raise self.foreign(f"it has no {absent[0]}, which that of this pruner has")
        members = [member for structure in self.structures for member in structure.members]
        shapes = {member.weight.name: member.weight.held.shape for member in members}
        self.refuse_other_shapes("masks", state["masks"], shapes)
        self.refuse_other_shapes("fixed zeros", state.get("fixed", {}), shapes)
        other = state.get("plan")
        if other is None:
            return
        for key, value in self.description().items():
            if other.get(key) != value:
                raise self.foreign(f"its {key}: {other.get(key)}; those of this pruner: {value}")

    def refuse_other_counts(
        self, pruned: Sequence[int], masks: Mapping[str, Tensor], shards: Shards, *, exact: bool
    ) -> None:
        """Refuse counts of pruned units that masks of these patterns do not have.

        Args:
            shards: the processes that hold the masks.
            exact: whether masks are of nothing but whole units.
        """
        if len(pruned) != len(self.structures):
            raise self.foreign(f"it has {len(pruned)} structures, and this pruner {len(self.structures)}")
        for structure, count in zip(self.structures, pruned, strict=True):
            members = structure.members
            whole = all(member.weight.name in masks for member in members)
            found = shards.total(int(structure.empty(masks).sum()) if whole else 0)
            legal = not whole or all(m.pattern.legal(m.weight.view(masks[m.weight.name])) for m in members)
            legal = shards.total(int(not legal)) == 0
            if count > structure.units or (exact and (count != found or not legal)):
                raise self.foreign(
                    f"{structure.name} has {count} pruned units in it, and its masks are not those of so many "
                    f"{self.plan.pattern.name} units"
                )

    def refuse_other_shapes(self, what: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        """Refuse tensors of weights that there are not, or of another shape than they need."""
        for name, tensor in tensors.items():
            if tensor.shape != shapes.get(name):
                raise self.foreign(f"in its {what}, {name} has shape {tuple(tensor.shape)}")

    def foreign(self, why: str) -> SparsityError:
        """The error of a state that does not fit."""
        return SparsityError(
            f"state of pruner {self.pruner} does not fit: {why}", cure="load the state of the same plan and model"
        )


def describe(value: object) -> str:
    """A value in words that are the same in every process: the class and fields of what has fields, numbers, texts."""
    if is_dataclass(value) and not isinstance(value, type):
        inside = ", ".join(f"{field.name}={describe(getattr(value, field.name))}" for field in fields(value))
        return f"{type(value).__name__}({inside})"
    if value is None or isinstance(value, (bool, int, float, str, Fraction)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    return type(value).__name__
