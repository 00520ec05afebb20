"""Which part of an update is due, and which weights are in it? The state of a progressive transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.patterns import Block
from hydraprune.sparsity.progressive import Progressive, Transition, linear_stages, scored_stages
from hydraprune.sparsity.pruners.masks import Masks
from hydraprune.sparsity.pruners.score_state import Memory
from hydraprune.sparsity.schedules import Updates


class Parts:
    """The parts in which a pruner's updates come into force.

    Raises:
        SparsityError: the strides between updates are too short to be parted, or the blocks cannot be.
    """

    def __init__(self, transition: Transition, updates: Updates, memory: Memory) -> None:
        self.transition, self.updates, self.members = transition, updates, memory.members
        self.stride = updates.frequency // transition.parts
        if self.stride == 0:
            raise SparsityError(
                f"frequency={updates.frequency}: {transition.parts} parts need at least {transition.parts} steps from "
                f"one update to the next, and more than one update; choose a longer frequency, or progressive=none"
            )
        # Per weight, with which part it goes (1..parts), 0: it stays. None between two updates.
        self._stages: list[Tensor] | None = None
        self.zeros: int | None = None  # held while an update is in parts
        self._order: Memory | None = None  # scores of single weights
        self._own = False  # whether that is a memory beside the criterion's
        if isinstance(transition, Progressive):
            transition.check(self.members)
            if transition.order == "scores":
                self._own = any(_cells(member) != member.weight.parameter.numel() for member in self.members)
                alone = [Member(m.weight, Block(1, 1)) for m in self.members]
                self._order = Memory(memory.criterion, alone, memory.pruner) if self._own else memory

    @property
    def many(self) -> bool:
        """Whether there is more than one part."""
        return self.transition.parts > 1

    @property
    def under_way(self) -> bool:
        """Whether an update is partly in force."""
        return self._stages is not None and self.zeros is not None

    @property
    def _lead(self) -> int:
        return (self.transition.parts - 1) * self.stride

    def choice(self, update: int) -> int:
        """The step at which the units of the update due at `update` are chosen."""
        return update - self._lead

    def next_choice(self, step: int) -> int | None:
        """The first step from `step` on at which units are chosen; None when there is none left."""
        update = self.updates.next_due(step + self._lead)
        return None if update is None else self.choice(update)

    def due(self, step: int) -> tuple[int, int] | None:
        """(update, part) of what comes into force at `step`, parts counted from 1; None: nothing."""
        update = self.updates.next_due(step)
        if update is None or update - step > self._lead or (update - step) % self.stride:
            return None
        return update, self.transition.parts - (update - step) // self.stride

    def observe(self, step: int, coming: int | None) -> None:
        """Take in gradients, where weights go by their scores."""
        if self._order is not None and self._own:
            self._order.observe(step, coming)

    def plan(self, before: Sequence[Tensor | None], masks: Masks, pools: Sequence[Sequence[int]], step: int) -> None:
        """Part what has newly been pruned. `masks` are those of the whole update, `before` those until now."""
        if not self.many:
            return
        news, outs = [], []
        for place, (member, old) in enumerate(zip(self.members, before, strict=True)):
            keep = masks.whole(place)
            if keep is None:
                return  # nothing is pruned yet
            out = member.weight.view(~keep)
            outs.append(out)
            news.append(out if old is None else out & member.weight.view(old))
        stages = self._staged(news, pools, step)
        # What is out already stays out from the first part on.
        self._stages = [
            torch.where(out & ~new, torch.ones_like(stage), stage)
            for stage, new, out in zip(stages, news, outs, strict=True)
        ]

    def _staged(self, news: Sequence[Tensor], pools: Sequence[Sequence[int]], step: int) -> list[Tensor]:
        parts, result = self.transition.parts, list(news)
        if self._order is None:
            return [linear_stages(member, new, parts) for member, new in zip(self.members, news, strict=True)]
        scores = self._order.scores(step)
        for places in pools:
            found = scored_stages([news[p] for p in places], [scores[p].reshape(news[p].shape) for p in places], parts)
            for place, stage in zip(places, found, strict=True):
                result[place] = stage
        return result

    def hold(self, part: int, masks: Masks) -> None:
        """Put an update's parts up to this one in force."""
        if self._stages is None:
            return
        keeps = [(stages == 0) | (stages > part) for stages in self._stages]
        last = part == self.transition.parts
        for place, (member, keep) in enumerate(zip(self.members, keeps, strict=True)):
            whole = member.weight.layout.weight(keep, member.weight.parameter.shape).contiguous()
            if last:
                masks.load(place, whole)
            else:
                masks.hold(place, whole)
        self.zeros = None if last else int(torch.stack([(~keep).sum() for keep in keeps]).sum())
        if last:
            self._stages = None

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        names = [member.weight.name for member in self.members]
        return {
            "stages": {} if self._stages is None else dict(zip(names, self._stages, strict=True)),
            "zeros": self.zeros,
            "order": self._order.state() if self._order is not None and self._own else {},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self.zeros = state["zeros"]
        stages = state["stages"]
        self._stages = [stages[m.weight.name].to(m.weight.parameter.device) for m in self.members] if stages else None
        if self._order is not None and self._own:
            self._order.load(state["order"])


def _cells(member: Member) -> int:
    """In how many cells a criterion scores a weight."""
    return member.pattern.pool(torch.empty(member.weight.view_shape, device="meta")).numel()
