"""Who holds the masks? The pruner: the core's one object whose state changes.

In a training loop of your own, for every optimizer step `t` counted from 0:

    for p in pruners: p.project(0)      # once, before the first batch
    ...
    loss.backward()
    for p in pruners: p.observe(t)      # gradients into the criterion's memory
    optimizer.step()
    for p in pruners: p.project(t + 1)  # the update due at the next step, if any; weight *= mask

After every step a non-zero weight is an unmasked weight, so evaluating and saving need nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.masks import Masks
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.schedules import Updates
from hydraprune.sparsity.selection import choose
from hydraprune.sparsity.views import Weight


@dataclass(frozen=True)
class Units:
    """Counts of units of one pool of layers: asked for at the end, pruned now, in all."""

    target: int
    pruned: int
    total: int


class Pruner:
    """One plan over a set of weights, each of which belongs to no other pruner.

    Args:
        name: for messages and reports.
        plan: complete (criterion and schedule given).
        updates: the plan's schedule laid over the training.
        weights: what may be pruned, in a fixed order (ties go to the earlier weight).

    Raises:
        SparsityError: a shape does not fit the pattern, the amounts are impossible, or a criterion
            that scores gradients is asked to prune before the first step.
    """

    def __init__(self, name: str, plan: Plan, updates: Updates, weights: Sequence[Weight]) -> None:
        if plan.criterion is None:
            raise SparsityError(f"{name}: the plan has no criterion")
        self.name = name
        self.plan = plan
        self.pattern = plan.pattern
        self.criterion: Criterion = plan.criterion
        self.updates = updates
        self.weights = tuple(weights)
        self._refuse_misfits()
        self._units = [self.pattern.units(weight.view_shape) for weight in self.weights]
        plan.selection.check(self._units, self.pattern.share, self.pattern.name)
        if self.criterion.horizon != 0 and self._ratio(0) > 0:
            raise SparsityError(
                f"warmup=0: pruner {name} would prune before the first step, when {type(self.criterion).__name__} "
                f"has seen no gradient; give a warm-up of at least 1 step"
            )
        self._memory: list[Tensor] | None = None
        self._reached = False  # whether gradients were seen to reach all weights
        self._masks = Masks(self.pattern, self.weights)
        self._pruned = [0] * len(self.weights)

    def _refuse_misfits(self) -> None:
        misfits = [(w, why) for w in self.weights if (why := self.pattern.misfit(w.view_shape)) is not None]
        if misfits:
            weight, why = misfits[0]
            more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
            layer = weight.name.removesuffix("weight").removesuffix(".")
            raise SparsityError(
                f"{self.pattern.name} does not fit {weight.name} {tuple(weight.parameter.shape)}: {why}{more}; "
                f"choose another shape or exclude the layer: layers.exclude=['^{layer}$']"
            )

    def _ratio(self, step: int) -> float:
        due = self.updates.due(step)
        return self.updates.sparsity(step, float(self.plan.selection.target_sparsity)) if due else 0.0

    @torch.no_grad()
    def observe(self, step: int) -> None:
        """Take the gradients of optimizer step `step` into the criterion's memory, while they can matter.

        Call it after backward, with unscaled gradients, before the optimizer's step.

        Raises:
            SparsityError: a weight has no gradient.
        """
        if self.criterion.horizon != 0 and not self._reached:
            self._gradients()
            self._reached = True
        coming = self.updates.next_due(step + 1)
        if self.criterion.horizon == 0 or coming is None or coming - step > self.criterion.horizon:
            # What was remembered is older still, so it cannot matter either.
            self._memory = None
            return
        self._memory = self.criterion.remember(self._memory, self._views(), self._gradients(), self.pattern)

    def _views(self) -> list[Tensor]:
        return [weight.view(weight.parameter.detach()) for weight in self.weights]

    def _gradients(self) -> list[Tensor]:
        views = []
        for weight in self.weights:
            if weight.parameter.grad is None:
                raise SparsityError(
                    f"{weight.name} gets no gradient, so pruner {self.name} cannot score it; exclude it or unfreeze it"
                )
            views.append(weight.view(weight.parameter.grad))
        return views

    @torch.no_grad()
    def project(self, step: int) -> bool:
        """Make the update due at `step`, if any, then zero every masked weight in place.

        Returns:
            Whether the masks were updated.
        """
        # Before an update too: the optimizer has just moved masked weights off zero, and a criterion
        # that reads weights must see them as the forward pass did.
        self._masks.apply()
        if not self.updates.due(step):
            return False
        self._update(step)
        self._masks.apply()
        return True

    def _update(self, step: int) -> None:
        final = step == self.updates.last
        ratio = None if final else self._ratio(step)
        if ratio is not None and ratio <= 0 and not any(self._pruned):
            return
        if self.criterion.horizon != 0 and self._memory is None:
            if final and self.plan.selection.target_sparsity == 0:
                return
            raise SparsityError(f"pruner {self.name}: update at step {step}, but no gradient was observed before it")
        cells = self._memory or self.criterion.remember(None, self._views(), None, self.pattern)
        for pool in self.plan.selection.pools(len(self.weights)):
            budget = self.plan.selection.budget([self._units[i] for i in pool], self.pattern.share, ratio)
            settled = [self._pruned[i] == cap > 0 for i, cap in zip(pool, budget.caps, strict=True)]
            costs = [
                self._settled_cost(i) if at_cap else self.pattern.cost(cells[i])
                for i, at_cap in zip(pool, settled, strict=True)
            ]
            try:
                chosen = choose(costs, budget)
            except SparsityError as error:
                raise SparsityError(f"pruner {self.name}, step {step}: {error}") from None
            counts = torch.stack([pruned.sum() for pruned in chosen]).tolist()
            for i, at_cap, pruned, count in zip(pool, settled, chosen, counts, strict=True):
                if not at_cap:
                    self._pruned[i] = int(count)
                    self._masks.prune(i, pruned, cells[i])

    def _settled_cost(self, index: int) -> Tensor:
        """Costs that repeat the choice in force: a layer at its cap keeps its mask.

        As in the published tool. Only a criterion that revives weights can tell; what is left of
        such a layer is so little that shuffling it does more harm than good.
        """
        weight = self.weights[index]
        mask = self._masks.whole(index)
        assert mask is not None
        gone = self.pattern.empty_units(weight.view(mask))
        costs = torch.full(gone.shape, torch.finfo(torch.float32).max, device=gone.device)
        return costs.masked_fill_(gone, -torch.inf)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> bool mask shaped like the parameter, True = keep; empty before the first pruning."""
        whole = {weight.name: self._masks.whole(index) for index, weight in enumerate(self.weights)}
        return {name: mask for name, mask in whole.items() if mask is not None}

    @property
    def zeros(self) -> int:
        """How many weights the masks hold at zero."""
        return sum(
            pruned * self.pattern.unit_zeros(weight.view_shape)
            for pruned, weight in zip(self._pruned, self.weights, strict=True)
        )

    @property
    def total(self) -> int:
        """How many weights the pruner could zero."""
        return sum(weight.parameter.numel() for weight in self.weights)

    @property
    def pools(self) -> list[tuple[list[Weight], Units]]:
        """The layers that compete with one another, and their counts of units."""
        result = []
        for pool in self.plan.selection.pools(len(self.weights)):
            sizes = [self._units[i] for i in pool]
            target = self.plan.selection.budget(sizes, self.pattern.share).goal
            units = Units(target, sum(self._pruned[i] for i in pool), sum(sizes))
            result.append(([self.weights[i] for i in pool], units))
        return result

    def state_dict(self) -> dict[str, Any]:
        """Masks, criterion memory and counts: all that a resumed run needs."""
        memory = {} if self._memory is None else dict(zip(self._names, self._memory, strict=True))
        return {"masks": self.masks, "memory": memory, "pruned": list(self._pruned)}

    @property
    def _names(self) -> list[str]:
        return [weight.name for weight in self.weights]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a pruner with the same plan and weights."""
        masks, memory = state["masks"], state["memory"]
        for key, tensors, shape_of in (("masks", masks, _mask_shape), ("memory", memory, self._memory_shape)):
            for name, tensor in tensors.items():
                weight = next((w for w in self.weights if w.name == name), None)
                if weight is None or tensor.shape != shape_of(weight):
                    raise SparsityError(
                        f"state of pruner {self.name}: its {key} of {name} {tuple(tensor.shape)} fit no weight here; "
                        f"it is the state of another plan or model"
                    )
        if len(state["pruned"]) != len(self.weights) or (memory and len(memory) != len(self.weights)):
            counts = f"{len(state['pruned'])} weights, {len(memory)} of them remembered"
            raise SparsityError(f"state of pruner {self.name}: is of {counts}, not of {len(self.weights)}")
        # Copies: the memory is written in place, and its source may go on living.
        self._memory = [memory[w.name].to(w.parameter.device, copy=True) for w in self.weights] if memory else None
        self._masks = Masks(self.pattern, self.weights)
        for index, weight in enumerate(self.weights):
            if weight.name in masks:
                mask = weight.view(masks[weight.name].to(weight.parameter.device))
                self._masks.prune(index, self.pattern.empty_units(mask), mask.float())
        self._pruned = list(state["pruned"])

    def _memory_shape(self, weight: Weight) -> torch.Size:
        return self.pattern.pool(weight.view(torch.empty(weight.parameter.shape, device="meta"))).shape


def _mask_shape(weight: Weight) -> torch.Size:
    return weight.parameter.shape


def attach(
    model: nn.Module,
    plans: Mapping[str, Plan],
    family: Family,
    steps: int,
    steps_per_epoch: int | None = None,
) -> tuple[Pruner, ...]:
    """The pruners that carry out `plans` on `model` in a training of `steps` optimizer steps.

    Raises:
        SparsityError: a weight is claimed by two pruners, or whatever is wrong with one of them.
    """
    pruners: list[Pruner] = []
    owners: dict[int, tuple[str, str]] = {}
    for name, plan in plans.items():
        try:
            if plan.schedule is None:
                raise SparsityError(f"pruner {name}: the plan has no schedule")
            weights = plan.layers.select(model, family)
            _claim(weights, name, owners)
            pruners.append(Pruner(name, plan, plan.schedule.over(steps, steps_per_epoch), weights))
        except SparsityError as error:
            error.pruner = name
            raise
    return tuple(pruners)


def _claim(weights: Sequence[Weight], pruner: str, owners: dict[int, tuple[str, str]]) -> None:
    """Note who owns each parameter; tied weights are one parameter."""
    for weight in weights:
        owner, known_as = owners.setdefault(id(weight.parameter), (pruner, weight.name))
        if owner == pruner and known_as != weight.name:
            raise SparsityError(f"{weight.name} is tied to {known_as}, so they are one weight: exclude one of the two")
        if (owner, known_as) != (pruner, weight.name):
            tied = "" if known_as == weight.name else f" (tied to {known_as})"
            raise SparsityError(
                f"{weight.name}{tied} is claimed by pruner {owner} and by pruner {pruner}; "
                f"a weight belongs to at most one: exclude it from the other"
            )
