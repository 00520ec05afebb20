"""The score state of a pruner: what its criterion accumulates over steps, kept while an update can still need it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hydraprune.sparsity.criteria import Criterion
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member
from hydraprune.sparsity.patterns import Pattern
from hydraprune.sparsity.precision import at_least_single, wide
from hydraprune.sparsity.shards import WHOLE, Shards

log = logging.getLogger(__name__)

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
        shards: the processes that hold the weights.
    """

    def __init__(self, criterion: Criterion, members: Sequence[Member], pruner: str, shards: Shards = WHOLE) -> None:
        self.criterion = criterion
        self.shards = shards
        self.members = tuple(members)
        self.pruner = pruner
        # Per member; None while nothing is accumulated of any, or of this one.
        self.tensors: list[Tensor | None] | None = None
        self._skipped: int | Tensor = 0  # steps with gradients that are not finite, since the last that were
        # On an accelerator: whether any step in the state was finite. None: nothing is accumulated, or some was.
        self._any_finite: Tensor | None = None
        # Whether a step was seen in which the model did not use every weight: then no step is left out, since for some
        # weights the last that says anything may be long ago.
        self.intermittent = False
        self._seen_any, self._told = False, False  # whether any weight ever had a gradient, and a warning that none has
        # Members by pattern: a criterion scores all weights of one pattern in one call.
        self._by_pattern: dict[int, list[int]] = {}
        patterns = [member.pattern for member in self.members]
        for index, pattern in enumerate(patterns):
            self._by_pattern.setdefault(patterns.index(pattern), []).append(index)

    def observe(self, step: int, next_choice: int | None) -> None:
        """Add the gradients of step `step`; `next_choice` is the next step that ranks scores, if any.

        A weight without a gradient, such as one of a layer that this step left out, keeps the state that it has.

        Raises:
            SparsityError: a weight is frozen.
        """
        if self.criterion.horizon == 0:
            return
        gradients = self._gradients()
        self._note(gradients, step)
        late = next_choice is not None and next_choice - step > max(self.criterion.horizon, _LEAST_OBSERVED)
        if next_choice is None or (late and not self.intermittent):
            # The state is of steps still earlier, so it cannot matter either.
            self.tensors = None
            return
        self._add(gradients)

    def _note(self, gradients: Sequence[Tensor | None], step: int) -> None:
        """Take note of weights without a gradient; log it where none has had one yet, as where the loop is wrong."""
        self.intermittent = self.intermittent or any(gradient is None for gradient in gradients)
        if not self._seen_any and not (any(gradient is not None for gradient in gradients) or self._told):
            log.warning(
                "pruner %s, step %d: no weight has a gradient; call observe(step) after backward, before gradients are "
                "cleared",
                self.pruner,
                step,
            )
            self._told = True
        self._seen_any = self._seen_any or any(gradient is not None for gradient in gradients)

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        there = [gradient for gradient in gradients if gradient is not None]
        if not there:
            return
        if there[0].device.type == "cpu":
            finite = bool(self.shards.all(torch.tensor(_all_finite(there))))
            self._skipped = 0 if finite else self._skipped + 1
            if finite:
                self.tensors = self._update(self.tensors, gradients)
            return
        sums = [gradient.sum(dtype=wide(gradient.device)) for gradient in there]
        self._add_without_sync(gradients, self.shards.all(torch.stack(sums).isfinite().all()))

    def _add_without_sync(self, gradients: Sequence[Tensor | None], finite: Tensor) -> None:
        """The same without waiting for an accelerator, which discards an update by gradients that are not `finite`."""
        before = self.tensors and [None if tensor is None else tensor.clone() for tensor in self.tensors]
        if before is None:
            self._any_finite = finite
        elif self._any_finite is not None:
            self._any_finite = self._any_finite | finite
        after = self._update(self.tensors, gradients)
        self.tensors = [
            None if new is None else torch.where(finite, new, torch.zeros_like(new) if old is None else old)
            for new, old in zip(after, before or [None] * len(after), strict=True)
        ]
        self._skipped = torch.where(finite, 0, self._skipped + 1)

    def _update(
        self, tensors: Sequence[Tensor | None] | None, gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The states after a step; of members without a gradient as they were."""
        views = [member.values for member in self.members]
        olds: list[Tensor | None] = [None] * len(self.members) if tensors is None else list(tensors)
        result = list(olds)
        for indices in self._by_pattern.values():
            pattern = self.members[indices[0]].pattern
            there = [i for i in indices if gradients[i] is not None]
            # Those seen before, and those seen for the first time: all are one or the other but in odd models.
            for same in ([i for i in there if olds[i] is not None], [i for i in there if olds[i] is None]):
                if same:
                    states = [old for i in same if (old := olds[i]) is not None]
                    found = [gradient for i in same if (gradient := gradients[i]) is not None]
                    news = self.criterion.update_state(states or None, [views[i] for i in same], found, pattern)
                    for i, new in zip(same, news, strict=True):
                        result[i] = new
        return result

    def _of_weights(self) -> list[Tensor]:
        """The states of a criterion that scores weights alone."""
        views = [member.values for member in self.members]
        return self._per_pattern(
            lambda indices, pattern: self.criterion.update_state(None, [views[i] for i in indices], None, pattern)
        )

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
        tensors = self._of_weights() if self.criterion.horizon == 0 else self._seen(step)
        views = [member.values for member in self.members]
        return self._per_pattern(
            lambda indices, pattern: self.criterion.scores(
                [tensors[i] for i in indices], [views[i] for i in indices], pattern
            )
        )

    def _seen(self, step: int) -> list[Tensor]:
        """The states of all members, each of which was given a gradient before the update at `step`."""
        state = None if self._only_skipped() else self.tensors
        if state is None and not self._skipped:
            raise SparsityError(
                f"pruner {self.pruner}: update at step {step}, but no gradient was observed before it",
                cure="call observe(step) after backward, while gradients are there",
            )
        if state is None or int(self._skipped) >= _MOST_SKIPPED:
            raise SparsityError(
                f"pruner {self.pruner}, step {step}: the gradients of the last {int(self._skipped)} steps are not "
                f"finite",
                cure="look at the loss, and lower the learning rate",
            )
        seen: list[Tensor] = []
        for member, tensor in zip(self.members, state, strict=True):
            if tensor is None:
                raise SparsityError(
                    f"{member.weight.name} got no gradient in any step before the update at step {step}, so pruner "
                    f"{self.pruner} cannot score it",
                    cure="exclude it if the model does not use it, or warm up longer if it is used now and then",
                )
            seen.append(tensor)
        return seen

    def growth(self) -> list[Tensor] | None:
        """Cells of each member: what pruned units would be worth if they came back; None where none do.

        Read after `scores`, which refuses members without a state.
        """
        if self.tensors is None or not self.criterion.regrows:
            return None
        pairs = zip(self.tensors, self.members, strict=True)
        return [self.criterion.growth(state, member.pattern) for state, member in pairs if state is not None]

    def _gradients(self) -> list[Tensor | None]:
        views: list[Tensor | None] = []
        for member in self.members:
            parameter = member.weight.parameter
            if parameter.grad is None and not parameter.requires_grad:
                raise SparsityError(
                    f"{member.weight.name} gets no gradient, so pruner {self.pruner} cannot score it: it is frozen",
                    cure="exclude it or unfreeze it",
                )
            gradient = member.weight.gradient
            views.append(None if gradient is None else member.weight.view(gradient))
        return views

    def state(self) -> dict[str, Tensor]:
        """Parameter name -> its state, of those that have one; empty while nothing is accumulated."""
        if self.tensors is None or self._only_skipped():
            return {}
        pairs = zip(self.members, self.tensors, strict=True)
        return {member.weight.name: tensor for member, tensor in pairs if tensor is not None}

    def _only_skipped(self) -> bool:
        """Whether the state is of skipped steps only, which an accelerator accumulates as zeros."""
        return self._any_finite is not None and not bool(self._any_finite)

    def shapes(self) -> dict[str, torch.Size]:
        """Parameter name -> the shape of its state."""
        return {m.weight.name: self.criterion.state_shape(m.weight.held_shape, m.pattern) for m in self.members}

    def load(self, state: Mapping[str, Tensor], intermittent: bool = False) -> None:
        """Take over a state; copied, since it is updated in place and its source may still be in use."""
        self.intermittent, self._any_finite, self.tensors = intermittent, None, None
        if state:
            found = [(state.get(m.weight.name), m.weight.parameter.device) for m in self.members]
            self.tensors = [None if tensor is None else tensor.to(device, copy=True) for tensor, device in found]


def _all_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether no gradient holds a NaN or an infinity.

    By their sums, which costs one pass; only where a sum is not finite are the numbers themselves looked at, since
    large ones may add up to more than their precision holds.
    """
    sums = torch.stack([at_least_single(gradient.sum()) for gradient in gradients])
    return bool(sums.isfinite().all()) or all(bool(gradient.isfinite().all()) for gradient in gradients)
