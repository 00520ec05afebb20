"""The score state of a pruner: what its criterion accumulates over steps, kept while an update can still need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.patterns import Pattern

# Steps whose gradients are not finite are skipped, so a criterion that needs one step observes this many.
_LEAST_OBSERVED = 3
# A loss scaler skips a few steps while it adapts; with so many in a row the training has diverged.
_MOST_SKIPPED = 5


class ScoreState:
    """A criterion's state for some weights, each in the resolution of its own pattern.

    Args:
        criterion: what scores them.
        members: the weights, and the pattern of each.
        pruner: its name, for messages.
    """

    def __init__(self, criterion: Criterion, members: Sequence[Member], pruner: str) -> None:
        self.criterion = criterion
        self.members = tuple(members)
        self.pruner = pruner
        self.tensors: list[Tensor] | None = None  # per member; None while nothing is accumulated
        self._skipped: int | Tensor = 0  # steps with gradients that are not finite, since the last that were
        # On an accelerator: whether any step in the state was finite. None: nothing is accumulated, or some was.
        self._any_finite: Tensor | None = None
        self._checked = False  # whether every weight was seen to get a gradient
        # Members by pattern: a criterion scores all weights of one pattern in one call.
        self._by_pattern: dict[int, list[int]] = {}
        patterns = [member.pattern for member in self.members]
        for index, pattern in enumerate(patterns):
            self._by_pattern.setdefault(patterns.index(pattern), []).append(index)

    def observe(self, step: int, next_choice: int | None) -> None:
        """Add the gradients of step `step`; `next_choice` is the next step that ranks scores, if any.

        Raises:
            SparsityError: a weight has no gradient.
        """
        if self.criterion.horizon == 0:
            return
        if not self._checked:
            self._gradients()
            self._checked = True
        if next_choice is None or next_choice - step > max(self.criterion.horizon, _LEAST_OBSERVED):
            # The state is of steps still earlier, so it cannot matter either.
            self.tensors = None
            return
        self._add(self._gradients())

    def _add(self, gradients: list[Tensor]) -> None:
        finite = torch.stack([gradient.sum() for gradient in gradients]).isfinite().all()
        if finite.device.type == "cpu":
            self._skipped = 0 if bool(finite) else self._skipped + 1
            if bool(finite):
                self.tensors = self._update(self.tensors, gradients)
            return
        self._add_without_sync(gradients, finite)

    def _add_without_sync(self, gradients: list[Tensor], finite: Tensor) -> None:
        """The same without waiting for an accelerator, which discards an update by gradients that are not `finite`."""
        before = self.tensors and [tensor.clone() for tensor in self.tensors]
        if before is None:
            self._any_finite = finite
        elif self._any_finite is not None:
            self._any_finite = self._any_finite | finite
        after = self._update(self.tensors, gradients)
        olds = before or [torch.zeros_like(tensor) for tensor in after]
        self.tensors = [torch.where(finite, new, old) for new, old in zip(after, olds, strict=True)]
        self._skipped = torch.where(finite, 0, self._skipped + 1)

    def _update(self, tensors: list[Tensor] | None, gradients: list[Tensor] | None) -> list[Tensor]:
        views = [member.values for member in self.members]

        def updated(indices: list[int], pattern: Pattern) -> list[Tensor]:
            return self.criterion.update_state(
                None if tensors is None else [tensors[i] for i in indices],
                [views[i] for i in indices],
                None if gradients is None else [gradients[i] for i in indices],
                pattern,
            )

        return self._per_pattern(updated)

    def _per_pattern(self, compute: Callable[[list[int], Pattern], list[Tensor]]) -> list[Tensor]:
        """The results of one call for all members of each pattern, in the order of the members."""
        result = [torch.empty(0)] * len(self.members)
        for indices in self._by_pattern.values():
            for i, tensor in zip(indices, compute(indices, self.members[indices[0]].pattern), strict=True):
                result[i] = tensor
        return result

    def scores(self, step: int) -> list[Tensor]:
        """Cells of each member at an update, float32; the lowest are pruned first.

        Raises:
            SparsityError: no step with finite gradients was observed, or none of the last few was one.
        """
        state = self._update(None, None) if self.criterion.horizon == 0 else self.tensors
        if self._only_skipped():
            state = None
        if state is None and not self._skipped:
            raise SparsityError(f"pruner {self.pruner}: update at step {step}, but no gradient was observed before it")
        if state is None or int(self._skipped) >= _MOST_SKIPPED:
            raise SparsityError(
                f"pruner {self.pruner}, step {step}: the gradients of the last {int(self._skipped)} steps are not "
                f"finite",
                cure="look at the loss, and lower the learning rate",
            )
        views, tensors = [member.values for member in self.members], state
        return self._per_pattern(
            lambda indices, pattern: self.criterion.scores(
                [tensors[i] for i in indices], [views[i] for i in indices], pattern
            )
        )

    def growth(self) -> list[Tensor] | None:
        """Cells of each member: what pruned units would be worth if they came back; None where none do."""
        if self.tensors is None or not self.criterion.regrows:
            return None
        pairs = zip(self.tensors, self.members, strict=True)
        return [self.criterion.growth(state, member.pattern) for state, member in pairs]

    def _gradients(self) -> list[Tensor]:
        views = []
        for member in self.members:
            if member.weight.parameter.grad is None:
                raise SparsityError(
                    f"{member.weight.name} gets no gradient, so pruner {self.pruner} cannot score it",
                    cure="exclude it or unfreeze it",
                )
            views.append(member.weight.view(member.weight.parameter.grad))
        return views

    def state(self) -> dict[str, Tensor]:
        """Parameter name -> its state; empty while nothing is accumulated."""
        names = [member.weight.name for member in self.members]
        return {} if self.tensors is None or self._only_skipped() else dict(zip(names, self.tensors, strict=True))

    def _only_skipped(self) -> bool:
        """Whether the state is of skipped steps only, which an accelerator accumulates as zeros."""
        return self._any_finite is not None and not bool(self._any_finite)

    def shapes(self) -> dict[str, torch.Size]:
        """Parameter name -> the shape of its state."""
        return {m.weight.name: self.criterion.state_shape(m.weight.view_shape, m.pattern) for m in self.members}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state; copied, since it is updated in place and its source may still be in use."""
        self.tensors = (
            [state[m.weight.name].to(m.weight.parameter.device, copy=True) for m in self.members] if state else None
        )
        self._any_finite = None
