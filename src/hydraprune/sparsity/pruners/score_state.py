"""What does a criterion remember of the steps so far? Kept while it can still matter to an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.patterns import Pattern

# A step whose gradients are not finite does not count; where one step would do, these stand by.
_AT_LEAST = 3
# A loss scaler feels its way through a few such steps; a training of which so many are one after the other is lost.
_TOO_MANY = 5


class Memory:
    """A criterion's memory of some weights, each in the resolution of its own pattern."""

    def __init__(self, criterion: Criterion, members: Sequence[Member], pruner: str) -> None:
        self.criterion = criterion
        self.members = tuple(members)
        self.pruner = pruner
        self.kept: list[Tensor] | None = None
        self._astray: int | Tensor = 0  # steps whose gradients were not finite, since the last that was
        self._seen: Tensor | None = None  # on an accelerator: whether any step in memory was finite
        self._reached = False  # whether gradients were seen to reach all weights
        # Members by pattern: a criterion scores all weights of one pattern in one call.
        self._banks: dict[int, list[int]] = {}
        patterns = [member.pattern for member in self.members]
        for index, pattern in enumerate(patterns):
            self._banks.setdefault(patterns.index(pattern), []).append(index)

    def observe(self, step: int, coming: int | None) -> None:
        """Take in the gradients of step `step`; `coming` is the next step whose update ranks scores.

        Raises:
            SparsityError: a weight has no gradient.
        """
        if self.criterion.horizon == 0:
            return
        if not self._reached:
            self._gradients()
            self._reached = True
        if coming is None or coming - step > max(self.criterion.horizon, _AT_LEAST):
            # What was remembered is older still, so it cannot matter either.
            self.kept = None
            return
        self._take(self._gradients())

    def _take(self, gradients: list[Tensor]) -> None:
        whole = torch.stack([gradient.sum() for gradient in gradients]).isfinite().all()
        if whole.device.type == "cpu":
            self._astray = 0 if bool(whole) else self._astray + 1
            if bool(whole):
                self.kept = self._remember(self.kept, gradients)
            return
        self._take_without_reading(gradients, whole)

    def _take_without_reading(self, gradients: list[Tensor], whole: Tensor) -> None:
        """The same with no waiting for an accelerator: what comes of gradients not `whole` is put aside there."""
        before = self.kept and [tensor.clone() for tensor in self.kept]
        self._seen = whole if before is None or self._seen is None else self._seen | whole
        after = self._remember(self.kept, gradients)
        olds = before or [torch.zeros_like(tensor) for tensor in after]
        self.kept = [torch.where(whole, new, old) for new, old in zip(after, olds, strict=True)]
        self._astray = torch.where(whole, 0, self._astray + 1)

    def _remember(self, kept: list[Tensor] | None, gradients: list[Tensor] | None) -> list[Tensor]:
        views = self._views()

        def fresh(indices: list[int], pattern: Pattern) -> list[Tensor]:
            return self.criterion.remember(
                None if kept is None else [kept[i] for i in indices],
                [views[i] for i in indices],
                None if gradients is None else [gradients[i] for i in indices],
                pattern,
            )

        return self._by_pattern(fresh)

    def _by_pattern(self, compute: Callable[[list[int], Pattern], list[Tensor]]) -> list[Tensor]:
        """What is computed of all members of one pattern in one call, in the order of the members."""
        result = [torch.empty(0)] * len(self.members)
        for indices in self._banks.values():
            for i, tensor in zip(indices, compute(indices, self.members[indices[0]].pattern), strict=True):
                result[i] = tensor
        return result

    def scores(self, step: int) -> list[Tensor]:
        """Cells of each member at an update, float32; the lowest go first.

        Raises:
            SparsityError: no step was observed whose gradients were finite, or none of the last few was.
        """
        kept = self._remember(None, None) if self.criterion.horizon == 0 else self.kept
        if self._seen is not None and not bool(self._seen):
            kept = None
        if kept is None and not self._astray:
            raise SparsityError(f"pruner {self.pruner}: update at step {step}, but no gradient was observed before it")
        if kept is None or int(self._astray) >= _TOO_MANY:
            raise SparsityError(
                f"pruner {self.pruner}, step {step}: the gradients of the last {int(self._astray)} steps are not "
                f"finite; look at the loss, and lower the learning rate"
            )
        views, remembered = self._views(), kept
        return self._by_pattern(
            lambda indices, pattern: self.criterion.scores(
                [remembered[i] for i in indices], [views[i] for i in indices], pattern
            )
        )

    def growth(self) -> list[Tensor] | None:
        """Cells of each member: what pruned units would be worth if they came back; None: none come back."""
        if self.kept is None or not self.criterion.regrows:
            return None
        return [self.criterion.growth(kept, m.pattern) for kept, m in zip(self.kept, self.members, strict=True)]

    def _views(self) -> list[Tensor]:
        return [member.weight.view(member.weight.parameter.detach()) for member in self.members]

    def _gradients(self) -> list[Tensor]:
        views = []
        for member in self.members:
            if member.weight.parameter.grad is None:
                raise SparsityError(
                    f"{member.weight.name} gets no gradient, so pruner {self.pruner} cannot score it; exclude it or "
                    f"unfreeze it"
                )
            views.append(member.weight.view(member.weight.parameter.grad))
        return views

    def state(self) -> dict[str, Tensor]:
        """Parameter name -> memory; empty when nothing is remembered."""
        names = [member.weight.name for member in self.members]
        return {} if self.kept is None else dict(zip(names, self.kept, strict=True))

    def shapes(self) -> dict[str, torch.Size]:
        """Parameter name -> the shape of its memory."""
        return {m.weight.name: self.criterion.memory_shape(m.weight.view_shape, m.pattern) for m in self.members}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a memory; copies, since it is written in place and its source may go on living."""
        self.kept = (
            [state[m.weight.name].to(m.weight.parameter.device, copy=True) for m in self.members] if state else None
        )
