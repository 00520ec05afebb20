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
from torch import Tensor, nn
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.pruners.masks import Masks
from hydraprune.sparsity.pruners.state_check import StateCheck
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.shards import held, shards_of
from hydraprune.sparsity.wrappers import named_parameters


@dataclass(frozen=True)
class Units:
    """Counts of units of one pool of layers: to be pruned at the end, pruned now, in all.

    Args:
        sizes: what a unit of each layer counts for: 1, except where the target counts weights. Then `target` is the
            least that may be pruned.
    """

    target: int
    pruned: int
    total: int
    sizes: tuple[int, ...]


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
        self.shards = shards_of([(member.weight.name, member.weight.parameter) for member in self._members])
        self._pruned = [0] * len(self.structures)  # units
        self._begun = False
        self._masked_steps = 0  # observed steps with masks in force, up to two
        self._moved: Tensor | None = (
            None  # per member, whether a masked weight was not zero, where that is not yet read
        )

    @abstractmethod
    def observe(self, step: int) -> None:
        """Take in the gradients of optimizer step `step`.

        Call it after backward, with unscaled gradients, before the optimizer's step.

        Raises:
            SparsityError: a weight that is scored is frozen, or a weight is no longer the model's.
        """

    @abstractmethod
    def begin(self) -> None:
        """Take in the zeros that training starts from; the first `project` calls it, later calls do nothing.

        Raises:
            SparsityError: the target cannot be reached from them, or a weight is no longer the model's.
        """

    @abstractmethod
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        """Make the update due at `step`, if any, then zero every masked weight in place.

        Args:
            optimizer: that of the weights; some methods need its learning rate or reset its moments.

        Returns:
            Whether the masks were updated.

        Raises:
            SparsityError: a weight is no longer the model's: it, or its layer, was replaced after `attach`.
        """

    @property
    @abstractmethod
    def pools(self) -> list[tuple[list[Structure], Units]]:
        """The structures that compete with one another, and their counts of units."""

    @property
    def at_target(self) -> bool:
        """Whether as many units are pruned as the target asks for: not so if a training ends before the last update."""
        return all(units.pruned >= units.target for _, units in self.pools)

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

        Of a sharded weight, the part that this process holds.

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
        """How many weights are masked; where they are sharded, every process asks at the same time."""
        if self.kept_zeros:
            return self.shards.total(self._masks.zeros)
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
        masks = self.masks_in_force
        for name, mask in masks.items():
            if name not in weights or held(weights[name]).shape != mask.shape:
                shape = f"has shape {tuple(held(weights[name]).shape)} there" if name in weights else "is not there"
                raise SparsityError(
                    f"pruner {self.name} masks {name} {tuple(mask.shape)}, which {shape}",
                    cure="give a copy of the pruned model",
                )
        for name, mask in masks.items():
            held(weights[name]).masked_fill_(~mask.to(weights[name].device), 0)

    @property
    def needs_pruned_gradients(self) -> bool:
        """Whether the gradients of masked weights have to be those of the loss; if not, they may be 0."""
        return True

    @property
    def masks_in_force(self) -> dict[str, Tensor]:
        """As `masks`, together with the zeros that are kept: where a weight is 0 in the forward pass."""
        applied = {member.weight.name: self._masks.applied(index) for index, member in enumerate(self._members)}
        return {name: mask for name, mask in applied.items() if mask is not None}

    def _prune(self, index: int, pruned: Tensor, cells: Sequence[Tensor] | Mapping[int, Tensor], count: int) -> None:
        """Mask these units of a structure; `cells` are those of its members, `count` is how many units they are."""
        for i in self._indices[index]:
            self._masks.prune(i, pruned, cells[i])
        self._pruned[index] = count

    def _refuse_replaced(self) -> None:
        """Refuse weights that are no longer the model's (see `Ownership.check`)."""
        try:
            self._masks.ownership.check()
        except SparsityError as error:
            raise error.of(self.name) from None

    def _check_order(self) -> None:
        """Look once, when masks are in force, whether masked weights are zero while gradients are observed.

        They are not in a loop that calls `project` before the optimizer's step: it then moves them off zero, and the
        forward pass sees them so. On an accelerator the answer is read at the next update, which waits anyway.

        Raises:
            SparsityError: a masked weight is not zero.
        """
        if self._masked_steps == 2 or all(kept is None for kept in self._masks.kept):
            return
        self._masked_steps += 1
        if self._masked_steps == 1:
            return  # before the first batch, masks are applied in any loop
        moved = []
        for index, member in enumerate(self._members):
            mask, weight = self._masks.applied(index), member.weight.held
            keep = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
            moved.append((weight.masked_fill(keep, 0) != 0).any())
        self._moved = self.shards.any(torch.stack(moved))
        if self._moved.device.type == "cpu":
            self._refuse_moved()

    def _refuse_moved(self) -> None:
        """Refuse a loop of which `_check_order` found that masked weights are not zero."""
        moved, self._moved = self._moved, None
        if moved is not None and bool(moved.any()):
            name = self._members[int(moved.int().argmax())].weight.name
            raise SparsityError(
                f"pruner {self.name}: masked weights of {name} are not zero when gradients are observed",
                cure="call project(step + 1) after optimizer.step(), and change weights between steps by the optimizer "
                "alone",
            )

    def _keep_zeros(self) -> None:
        """Mask units that are zero already: a sparse checkpoint begins at its own sparsity."""
        tensors = {m.weight.name: m.weight.held for m in self._members}
        for index, structure in enumerate(self.structures):
            empty = structure.empty(tensors)
            if count := self.shards.total(int(empty.sum())):
                members = {i: self._members[i] for i in self._indices[index]}
                cells = {i: m.pattern.to_cells(m.values.abs().float()) for i, m in members.items()}
                self._prune(index, empty, cells, count)

    def _fix_zeros(self) -> None:
        """Keep every weight at zero that is zero already, also in units that are not pruned."""
        for index, member in enumerate(self._members):
            keep = member.weight.held != 0
            if not bool(self.shards.all(keep.all())):
                self._masks.fix(index, keep)

    def _zero_from_the_start(self, index: int) -> Tensor | None:
        """The units of a structure that were zero before training and stay so: bool, flat [units]; None: none."""
        structure = self.structures[index]
        fixed = {self._members[i].weight.name: self._masks.fixed[i] for i in self._indices[index]}
        masks = {name: keep for name, keep in fixed.items() if keep is not None}
        return structure.empty(masks) if len(masks) == len(fixed) else None

    def _masked_units(self, index: int) -> Tensor:
        """The masked units of a structure: bool, flat [units]."""
        structure = self.structures[index]
        masks = {self._members[i].weight.name: self._masks.whole(i) for i in self._indices[index]}
        whole = {name: mask for name, mask in masks.items() if mask is not None}
        if len(whole) == len(masks):
            return structure.empty(whole)
        first = structure.members[0]
        units = first.pattern.units(first.weight.held_shape)
        return torch.zeros(units, dtype=torch.bool, device=first.weight.parameter.device)

    def state_dict(self) -> dict[str, Any]:
        """Masks and counts, and the plan that they are of; subclasses add whatever else a resumed run needs."""
        return {
            "plan": self._state_check.description(),
            "masks": self.masks,
            "fixed": self.kept_zeros,
            "pruned": list(self._pruned),
            "begun": self._begun,
        }

    def refuse_other_state(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of a pruner with another plan or other weights.

        Raises:
            SparsityError: it is one.
        """
        self._state_check.refuse_other_plan(state, list(self.state_dict()))

    @property
    def _state_check(self) -> StateCheck:
        return StateCheck(self.name, self.plan, self.updates, self.structures)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a pruner with the same plan and weights.

        Raises:
            SparsityError: it is the state of another pruner, plan or model.
        """
        check = self._state_check
        check.refuse_other_plan(state, list(self.state_dict()))
        masks, fixed = state["masks"], state.get("fixed", {})
        check.refuse_other_counts(state["pruned"], masks, self.shards, exact=not state.get("parts", {}).get("stages"))
        self._masks = Masks(self._members)
        for index, member in enumerate(self._members):
            name, device = member.weight.name, member.weight.parameter.device
            if name in fixed:
                self._masks.fix(index, fixed[name].to(device))
            if name in masks:
                self._masks.load(index, masks[name].to(device))
        self._pruned = list(state["pruned"])
        self._begun = bool(state["begun"])
