"""Step hooks: pruners that follow an optimizer, so that a training loop needs no line for each step."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.pruners.base import Pruner
from hydraprune.sparsity.wrappers import unwrapped_optimizer

log = logging.getLogger(__name__)

# Optimizers that have hooks, so that a second set is refused: it would count every step twice.
_HOOKED: weakref.WeakSet[Optimizer] = weakref.WeakSet()


def hooked(pruners: Sequence[Pruner], optimizer: Optimizer, state: Mapping[str, Any] | None = None) -> StepHooks:
    """Let pruners follow an optimizer: before each of its steps they observe gradients, after it they project.

    In a loop that trains already this is the only line:

        hooks = hooked(attach(model, plans, family, steps=2000), optimizer)

    The number of a step is that of calls of `optimizer.step()`, whatever the loop accumulates. A step that a loss
    scaler skips does not count, and its gradients are not observed. Masks of step 0 are applied at once: what is pruned
    at the start, and zeros that are kept.

    Args:
        pruners: as `attach` made them.
        optimizer: of the pruned weights; one in accelerate's wrapper too.
        state: of earlier hooks (`StepHooks.state_dict`), to go on from; the model has the weights of its checkpoint.

    Raises:
        SparsityError: the optimizer has hooks already, or holds none of the weights of a pruner; or `state` is that of
            other pruners.
    """
    return StepHooks(pruners, optimizer, state)


class StepHooks:
    """The hooks of some pruners on an optimizer; see `hooked`. `remove` takes them off, as leaving a `with` does.

    Args:
        pruners, optimizer, state: see `hooked`.
    """

    def __init__(self, pruners: Sequence[Pruner], optimizer: Optimizer, state: Mapping[str, Any] | None = None) -> None:
        self.pruners, self.optimizer = tuple(pruners), unwrapped_optimizer(optimizer)
        self.step = 0  # optimizer steps taken
        self._check()
        if state is None:
            for pruner in self.pruners:
                pruner.project(0, self.optimizer)
        else:
            self.load_state_dict(state)
        _HOOKED.add(self.optimizer)
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]

    def _check(self) -> None:
        if self.optimizer in _HOOKED:
            raise SparsityError(
                "this optimizer has hooks of pruners already, which would count every step twice",
                key="optimizer",
                value=type(self.optimizer).__name__,
                cure="give all pruners to one call of hooked, or remove() the other hooks first",
            )
        held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        for pruner in self.pruners:
            if not any(id(weight.parameter) in held for weight in pruner.weights):
                raise SparsityError(
                    f"the optimizer holds none of the weights of pruner {pruner.name}",
                    key="optimizer",
                    value=type(self.optimizer).__name__,
                    cure="give the one that trains them",
                )

    def _before(
        self, optimizer: Optimizer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Observe gradients; where the step gets a closure, once that has computed them."""
        closure = options.get("closure", arguments[1] if len(arguments) > 1 else None)
        if closure is None:
            self._observe(optimizer)
            return None
        observed = False

        def compute() -> Any:
            nonlocal observed
            loss = closure()
            if not observed:
                observed = True
                self._observe(optimizer)
            return loss

        if "closure" in options:
            return arguments, {**options, "closure": compute}
        return (arguments[0], compute, *arguments[2:]), options

    def _observe(self, optimizer: Optimizer) -> None:
        if getattr(optimizer, "grad_scale", None) is not None:
            raise SparsityError(
                "its step takes scaled gradients, which a fused optimizer unscales by itself",
                key="optimizer",
                value=type(optimizer).__name__,
                cure="call scaler.unscale_(optimizer) before scaler.step(optimizer)",
            )
        overflowed = getattr(optimizer, "found_inf", None)  # as a scaler tells a fused optimizer, which then skips
        if overflowed is None or not bool(overflowed):
            for pruner in self.pruners:
                pruner.observe(self.step)

    def _after(self, optimizer: Optimizer, arguments: object, options: object) -> None:
        self.step += 1
        for pruner in self.pruners:
            pruner.project(self.step, optimizer)

    @property
    def done(self) -> bool:
        """Whether the last update of every pruner is made: its target is in force, and the masks are final."""
        return all(self.step >= pruner.updates.last and pruner.at_target for pruner in self.pruners)

    def remove(self) -> None:
        """Take the hooks off. Logs a warning if a pruner is not done."""
        for handle in self._handles:
            handle.remove()
        if self._handles and not self.done:
            waiting = [pruner for pruner in self.pruners if self.step < pruner.updates.last or not pruner.at_target]
            log.warning(
                "training ended after %d steps, before the last mask update of pruner %s (step %d): its target is not "
                "reached",
                self.step,
                waiting[0].name,
                waiting[0].updates.last,
            )
        self._handles = []
        _HOOKED.discard(self.optimizer)

    def __enter__(self) -> StepHooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def state_dict(self) -> dict[str, Any]:
        """The step, and the states of the pruners by their names."""
        return {"step": self.step, "pruners": {pruner.name: pruner.state_dict() for pruner in self.pruners}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, for pruners of the same plans; weights are the checkpoint's.

        Raises:
            SparsityError: it is the state of other pruners.
        """
        names, given = [pruner.name for pruner in self.pruners], list(state["pruners"])
        if names != given:
            raise SparsityError(f"the state is of pruners {', '.join(given)}, and these are {', '.join(names)}")
        for pruner in self.pruners:
            pruner.load_state_dict(state["pruners"][pruner.name])
        self.step = int(state["step"])
