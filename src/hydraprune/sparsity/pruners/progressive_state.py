"""The state of a progressive transition: which part of an update is due, and which weights are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.patterns import Block
from hydraprune.sparsity.progressive import Progressive, Transition, parts_along_blocks, parts_by_scores
from hydraprune.sparsity.pruners.masks import Masks
from hydraprune.sparsity.pruners.score_state import ScoreState
from hydraprune.sparsity.schedules import Updates


class ProgressiveState:
    """How far a pruner is in carrying out its updates in parts; with `AtOnce`, an update has one part.

    Args:
        transition: how many parts, and in which order weights go.
        updates: those of the pruner.
        scores: the pruner's score state.

    Raises:
        SparsityError: updates follow each other too closely for the number of parts, or the patterns do not fit.
    """

    def __init__(self, transition: Transition, updates: Updates, scores: ScoreState) -> None:
        self.transition, self.updates, self.members = transition, updates, scores.members
        self.interval = updates.frequency // transition.parts
        if self.interval == 0:
            raise SparsityError(
                f"{transition.parts} parts need at least {transition.parts} steps from one update to the next, and "
                f"more than one update",
                key="scheduler.frequency",
                value=updates.frequency,
                cure="choose a longer frequency, or progressive=none",
            )
        # Per weight of a view the part in which it is pruned (1..parts), 0: it is kept. None between two updates.
        self._part_of: list[Tensor] | None = None
        self.zeros: int | None = None  # masked weights, while an update is partly in force
        self._order: ScoreState | None = None  # scores of single weights, where these decide on the part
        self._own: ScoreState | None = None  # the same, where that is a state beside the pruner's
        if isinstance(transition, Progressive):
            self._check(transition)
            if transition.order == "scores":
                if any(_cells(member) != member.weight.parameter.numel() for member in self.members):
                    single = [Member(m.weight, Block(1, 1)) for m in self.members]
                    self._own = ScoreState(scores.criterion, single, scores.pruner)
                self._order = self._own or scores

    def _check(self, transition: Progressive) -> None:
        try:
            transition.check(self.members)
        except SparsityError as error:
            raise error.under("progressive") from None

    @property
    def many(self) -> bool:
        """Whether an update has more than one part."""
        return self.transition.parts > 1

    @property
    def under_way(self) -> bool:
        """Whether an update is partly in force."""
        return self._part_of is not None

    @property
    def _lead(self) -> int:
        """How many steps before an update its units are chosen."""
        return (self.transition.parts - 1) * self.interval

    def choice(self, update: int) -> int:
        """The step at which the units of the update due at `update` are chosen."""
        return update - self._lead

    def next_choice(self, step: int) -> int | None:
        """The first step from `step` on at which units are chosen; None when there is none left."""
        update = self.updates.next_due(step + self._lead)
        return None if update is None else self.choice(update)

    def due(self, step: int) -> tuple[int, int] | None:
        """(update, part) of what comes into force at `step`, parts counted from 1; None when nothing does."""
        update = self.updates.next_due(step)
        if update is None or update - step > self._lead or (update - step) % self.interval:
            return None
        return update, self.transition.parts - (update - step) // self.interval

    def observe(self, step: int, next_choice: int | None) -> None:
        """Add gradients to the scores of single weights, where these are kept."""
        if self._own is not None:
            self._own.observe(step, next_choice)

    def plan(self, before: Sequence[Tensor | None], masks: Masks, pools: Sequence[Sequence[int]], step: int) -> None:
        """Divide the newly pruned weights into parts.

        Args:
            before: per member the mask until now, shaped like the parameter; None: not masked.
            masks: those of the whole update.
            pools: indices of the members that compete.
            step: now.
        """
        if not self.many:
            return
        news, alls = [], []
        for index, (member, old) in enumerate(zip(self.members, before, strict=True)):
            keep = masks.whole(index)
            if keep is None:
                return  # nothing is pruned yet
            pruned = member.weight.view(~keep)
            alls.append(pruned)
            news.append(pruned if old is None else pruned & member.weight.view(old))
        # What is pruned already stays so from the first part on.
        self._part_of = [
            torch.where(pruned & ~new, torch.ones_like(part), part)
            for part, new, pruned in zip(self._divided(news, pools, step), news, alls, strict=True)
        ]

    def _divided(self, news: Sequence[Tensor], pools: Sequence[Sequence[int]], step: int) -> list[Tensor]:
        parts, result = self.transition.parts, list(news)
        if self._order is None:
            return [parts_along_blocks(member, new, parts) for member, new in zip(self.members, news, strict=True)]
        scores = [
            _as_view(member, cells) for member, cells in zip(self._order.members, self._order.scores(step), strict=True)
        ]
        for indices in pools:
            found = parts_by_scores([news[i] for i in indices], [scores[i] for i in indices], parts)
            for index, part in zip(indices, found, strict=True):
                result[index] = part
        return result

    def hold(self, part: int, masks: Masks) -> None:
        """Mask the parts of an update up to this one."""
        if self._part_of is None:
            return
        keeps = [(own == 0) | (own > part) for own in self._part_of]
        last = part == self.transition.parts
        for index, (member, keep) in enumerate(zip(self.members, keeps, strict=True)):
            whole = member.weight.unview(keep).contiguous()
            if last:
                masks.load(index, whole)
            else:
                masks.hold(index, whole)
        self.zeros = None if last else int(torch.stack([(~keep).sum() for keep in keeps]).sum())
        if last:
            self._part_of = None

    def state(self) -> dict[str, Any]:
        """What a resumed run needs. The keys are those of saved states of earlier versions."""
        names = [member.weight.name for member in self.members]
        return {
            "stages": {} if self._part_of is None else dict(zip(names, self._part_of, strict=True)),
            "zeros": self.zeros,
            "order": {} if self._own is None else self._own.state(),
        }

    def load(self, state: Mapping[str, Any], intermittent: bool = False) -> None:
        """Take over a state; `intermittent`: see `ScoreState`."""
        self.zeros = state["zeros"]
        saved = state["stages"]
        self._part_of = [saved[m.weight.name].to(m.weight.parameter.device) for m in self.members] if saved else None
        if self._own is not None:
            self._own.load(state["order"], intermittent)


def _cells(member: Member) -> int:
    """How many cells a criterion scores in a weight."""
    return member.pattern.to_cells(torch.empty(member.weight.view_shape, device="meta")).numel()


def _as_view(member: Member, cells: Tensor) -> Tensor:
    """The cells of single weights, shaped like the weight's view."""
    return member.pattern.from_units(cells.reshape(member.units, -1), member.weight.view_shape)
