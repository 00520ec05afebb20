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
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.pruners.masks import Masks
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.wrappers import named_parameters


@dataclass(frozen=True)
class Units:
    """Counts of units of one pool of layers: to be pruned at the end, pruned now, in all."""

    target: int
    pruned: int
    total: int


# Keys that states of earlier versions do not have.
_NEWER = ("plan", "fixed", "intermittent")
# What two pruners share of which one may go on with the state of the other.
_OF_A_PLAN = ("pattern", "selection", "criterion", "schedule", "transition", "regularizer")


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
            SparsityError: a weight that is scored is frozen.
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
        """Parameter name -> bool mask shaped like the parameter, True = keep; empty before the first pruning.

        Masks are of units; zeros outside of pruned units that a sparse model keeps are in `kept_zeros`.
        """
        whole = {member.weight.name: self._masks.whole(index) for index, member in enumerate(self._members)}
        return {name: mask for name, mask in whole.items() if mask is not None}

    @property
    def kept_zeros(self) -> dict[str, Tensor]:
        """Parameter name -> bool mask like those of `masks`, False where the weight was zero before training.

        Of the weights that had such zeros, where they stay zero whatever the masks.
        """
        fixed = {member.weight.name: keep for member, keep in zip(self._members, self._masks.fixed, strict=True)}
        return {name: keep for name, keep in fixed.items() if keep is not None}

    @property
    def zeros(self) -> int:
        """How many weights are masked."""
        if self.kept_zeros:
            return sum(int((~mask).sum()) for mask in self._applied.values())
        return sum(
            pruned * structure.unit_zeros for pruned, structure in zip(self._pruned, self.structures, strict=True)
        )

    @property
    def total(self) -> int:
        """How many weights the pruner could zero."""
        return sum(structure.total for structure in self.structures)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Set to zero in a copy of the pruned model what is masked here: an average of its weights, reloaded weights.

        Args:
            model: with the same parameter names, in a wrapper or not.

        Raises:
            SparsityError: it has no parameter of such a name, or one of another shape.
        """
        weights = {name: parameter for name, parameter, _ in named_parameters(model)}
        masks = self._applied
        for name, mask in masks.items():
            if name not in weights or weights[name].shape != mask.shape:
                shape = f"has shape {tuple(weights[name].shape)} there" if name in weights else "is not there"
                raise SparsityError(
                    f"pruner {self.name} masks {name} {tuple(mask.shape)}, which {shape}",
                    cure="give a copy of the pruned model",
                )
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask.to(weights[name].device), 0)

    @property
    def _applied(self) -> dict[str, Tensor]:
        """The masks together with the zeros that are kept."""
        applied = {member.weight.name: self._masks.applied(index) for index, member in enumerate(self._members)}
        return {name: mask for name, mask in applied.items() if mask is not None}

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

    def _fix_zeros(self) -> None:
        """Keep every weight at zero that is zero already, also in units that are not pruned."""
        for index, member in enumerate(self._members):
            keep = member.weight.parameter.detach() != 0
            if not bool(keep.all()):
                self._masks.fix(index, keep)

    def _masked_units(self, index: int) -> Tensor:
        """The masked units of a structure: bool, flat [units]."""
        structure = self.structures[index]
        masks = {self._members[i].weight.name: self._masks.whole(i) for i in self._indices[index]}
        whole = {name: mask for name, mask in masks.items() if mask is not None}
        if len(whole) == len(masks):
            return structure.empty(whole)
        return torch.zeros(structure.units, dtype=torch.bool, device=structure.members[0].weight.parameter.device)

    def state_dict(self) -> dict[str, Any]:
        """Masks and counts, and the plan that they are of; subclasses add whatever else a resumed run needs."""
        return {
            "plan": self._description(),
            "masks": self.masks,
            "fixed": self.kept_zeros,
            "pruned": list(self._pruned),
            "begun": self._begun,
        }

    def _description(self) -> dict[str, str]:
        """The plan and its updates in words, by which a state is known to be of the same plan."""
        described = {key: describe(getattr(self.plan, key)) for key in _OF_A_PLAN}
        updates = f"{self.updates.start} to {self.updates.last} every {self.updates.frequency}"
        return {**described, "updates": updates, "layers": ", ".join(weight.name for weight in self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a pruner with the same plan and weights.

        Raises:
            SparsityError: it is the state of another pruner, plan or model.
        """
        self._refuse_other_plan(state)
        masks, fixed = state["masks"], state.get("fixed", {})
        self._refuse_other_counts(state["pruned"], masks, exact=not state.get("parts", {}).get("stages"))
        self._masks = Masks(self._members)
        for index, member in enumerate(self._members):
            name, device = member.weight.name, member.weight.parameter.device
            if name in fixed:
                self._masks.fix(index, fixed[name].to(device))
            if name in masks:
                self._masks.load(index, masks[name].to(device))
        self._pruned = list(state["pruned"])
        self._begun = bool(state["begun"])

    def _refuse_other_plan(self, state: Mapping[str, Any]) -> None:
        """Refuse what is no state, or that of a pruner with another plan. States of earlier versions name no plan."""
        own = self.state_dict()
        if absent := [key for key in own if key not in state and key not in _NEWER]:
            raise self._foreign(f"it has no {absent[0]}, which that of a {type(self).__name__} pruner has")
        shapes = {m.weight.name: m.weight.parameter.shape for m in self._members}
        self._check_shapes("masks", state["masks"], shapes)
        self._check_shapes("fixed zeros", state.get("fixed", {}), shapes)
        mine, other = own["plan"], state.get("plan")
        if other is None:
            return
        for key, value in mine.items():
            if other.get(key) != value:
                raise self._foreign(f"its {key}: {other.get(key)}; those of this pruner: {value}")

    def _refuse_other_counts(self, pruned: Sequence[int], masks: Mapping[str, Tensor], *, exact: bool) -> None:
        """Refuse counts of pruned units that masks of these patterns do not have.

        Args:
            exact: whether masks are of nothing but whole units.
        """
        if len(pruned) != len(self.structures):
            raise self._foreign(f"it has {len(pruned)} structures, and this pruner {len(self.structures)}")
        for structure, count in zip(self.structures, pruned, strict=True):
            members = structure.members
            whole = all(member.weight.name in masks for member in members)
            found = int(structure.empty(masks).sum()) if whole else 0
            legal = not whole or all(m.pattern.legal(m.weight.view(masks[m.weight.name])) for m in members)
            if count > structure.units or (exact and (count != found or not legal)):
                raise self._foreign(
                    f"{structure.name} has {count} pruned units in it, and its masks are not those of so many "
                    f"{self.plan.pattern.name} units"
                )

    def _foreign(self, why: str) -> SparsityError:
        return SparsityError(
            f"state of pruner {self.name} does not fit: {why}", cure="load the state of the same plan and model"
        )

    def _check_shapes(self, what: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        for name, tensor in tensors.items():
            if tensor.shape != shapes.get(name):
                raise SparsityError(
                    f"state of pruner {self.name} does not fit: in its {what}, {name} has shape {tuple(tensor.shape)}",
                    cure="it is the state of another plan or model",
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
