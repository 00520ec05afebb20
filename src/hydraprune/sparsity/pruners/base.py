"""The pruner: holds the masks of some weights. The core's one kind of object whose state changes.

In a training loop of your own, for every optimizer step `t` counted from 0:

    for p in pruners: p.project(0, optimizer)      # once, before the first batch
    ...
    loss.backward()                                # unscale the gradients, if a scaler scaled the loss
    for p in pruners: p.observe(t)                 # gradients into the criterion's score state
    optimizer.step()
    for p in pruners: p.project(t + 1, optimizer)  # the update due at the next step, if any; weight *= mask

After every step a non-zero weight is an unmasked weight, so evaluating and saving need nothing else.
A step that a loss scaler skips counts like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.pruners.masks import Masks
from hydraprune.sparsity.schedules import Updates


@dataclass(frozen=True)
class Units:
    """Counts of units of one pool of layers: to be pruned at the end, pruned now, in all."""

    target: int
    pruned: int
    total: int


class Pruner(ABC):
    """Masks over a set of weights, each of which belongs to no other pruner.

    Args:
        name: for messages and reports.
        plan: what it carries out, complete (see `Plan.completed`).
        updates: the plan's schedule applied to the training.
        structures: what may be pruned, in a fixed order (of units that tie, those of the earlier one are pruned).
    """

    def __init__(self, name: str, plan: Plan, updates: Updates, structures: Sequence[Structure]) -> None:
        self.name = name
        self.plan = plan
        self.updates = updates
        self.structures = tuple(structures)
        self._members = [member for structure in self.structures for member in structure.members]
        starts = [0]
        for structure in self.structures:
            starts.append(starts[-1] + len(structure.members))
        # Per structure, the indices of its members in `_members`.
        self._indices = [range(start, end) for start, end in pairwise(starts)]
        self._masks = Masks(self._members)
        self._pruned = [0] * len(self.structures)  # units
        self._begun = False

    @abstractmethod
    def observe(self, step: int) -> None:
        """Take in the gradients of optimizer step `step`.

        Call it after backward, with unscaled gradients, before the optimizer's step.

        Raises:
            SparsityError: a weight that is scored has no gradient.
        """

    @abstractmethod
    def begin(self) -> None:
        """Take in the zeros that training starts from; the first `project` calls it, later calls do nothing.

        Raises:
            SparsityError: the target cannot be reached from them.
        """

    @abstractmethod
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        """Make the update due at `step`, if any, then zero every masked weight in place.

        Args:
            optimizer: that of the weights; some methods need its learning rate or reset its moments.

        Returns:
            Whether the masks were updated.
        """

    @property
    @abstractmethod
    def pools(self) -> list[tuple[list[Structure], Units]]:
        """The structures that compete with one another, and their counts of units."""

    @property
    def weights(self) -> list[Weight]:
        """All weights that it may mask."""
        return [member.weight for member in self._members]

    @property
    def emptied(self) -> list[str]:
        """Names of the structures in which every weight is pruned: nothing passes through them."""
        counted = zip(self._pruned, self.structures, strict=True)
        return [s.name for pruned, s in counted if pruned and pruned * s.unit_zeros == s.total]

    @property
    def target_sparsity(self) -> float:
        """Target element sparsity of its weights; of the units where their sizes differ."""
        return float(self.plan.selection.target_sparsity)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> bool mask shaped like the parameter, True = keep; empty before the first pruning."""
        whole = {member.weight.name: self._masks.whole(index) for index, member in enumerate(self._members)}
        return {name: mask for name, mask in whole.items() if mask is not None}

    @property
    def zeros(self) -> int:
        """How many weights are masked."""
        return sum(
            pruned * structure.unit_zeros for pruned, structure in zip(self._pruned, self.structures, strict=True)
        )

    @property
    def total(self) -> int:
        """How many weights the pruner could zero."""
        return sum(structure.total for structure in self.structures)

    def _prune(self, index: int, pruned: Tensor, cells: Sequence[Tensor] | Mapping[int, Tensor], count: int) -> None:
        """Mask these units of a structure; `cells` are those of its members, `count` is how many units they are."""
        for i in self._indices[index]:
            self._masks.prune(i, pruned, cells[i])
        self._pruned[index] = count

    def _keep_zeros(self) -> None:
        """Mask units that are zero already: a sparse checkpoint begins at its own sparsity."""
        tensors = {m.weight.name: m.weight.parameter.detach() for m in self._members}
        for index, structure in enumerate(self.structures):
            empty = structure.empty(tensors)
            if count := int(empty.sum()):
                members = {i: self._members[i] for i in self._indices[index]}
                cells = {i: m.pattern.to_cells(m.values.abs().float()) for i, m in members.items()}
                self._prune(index, empty, cells, count)

    def _masked_units(self, index: int) -> Tensor:
        """The masked units of a structure: bool, flat [units]."""
        structure = self.structures[index]
        masks = {self._members[i].weight.name: self._masks.whole(i) for i in self._indices[index]}
        whole = {name: mask for name, mask in masks.items() if mask is not None}
        if len(whole) == len(masks):
            return structure.empty(whole)
        return torch.zeros(structure.units, dtype=torch.bool, device=structure.members[0].weight.parameter.device)

    def state_dict(self) -> dict[str, Any]:
        """Masks and counts; subclasses add whatever else a resumed run needs."""
        return {"masks": self.masks, "pruned": list(self._pruned), "begun": self._begun}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a pruner with the same plan and weights.

        Raises:
            SparsityError: it is the state of another pruner.
        """
        masks = state["masks"]
        self._check_shapes("masks", masks, {m.weight.name: m.weight.parameter.shape for m in self._members})
        if len(state["pruned"]) != len(self.structures):
            raise SparsityError(
                f"state of pruner {self.name}: has {len(state['pruned'])} structures, not {len(self.structures)}"
            )
        self._masks = Masks(self._members)
        for index, member in enumerate(self._members):
            if member.weight.name in masks:
                self._masks.load(index, masks[member.weight.name].to(member.weight.parameter.device))
        self._pruned = list(state["pruned"])
        self._begun = bool(state["begun"])

    def _check_shapes(self, what: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        for name, tensor in tensors.items():
            if tensor.shape != shapes.get(name):
                raise SparsityError(
                    f"state of pruner {self.name} does not fit: in its {what}, {name} has shape {tuple(tensor.shape)}",
                    cure="it is the state of another plan or model",
                )
