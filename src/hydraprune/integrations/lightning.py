"""Pruning in Lightning: a callback, with its state in the checkpoints. Needs the package `lightning`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydraprune.sparsity import Family, Plan, SparsityError, StepHooks, attach, coverage, hooked

log = logging.getLogger(__name__)


class PruningCallback(Callback):  # type: ignore[misc]
    """Prunes the module that a `Trainer` fits.

        trainer = Trainer(max_epochs=3, callbacks=[PruningCallback({"4x1": plan}, Family("mine", outside=["head"]))])
        trainer.fit(module, data)

    Checkpoints hold the pruners' state; `trainer.fit(..., ckpt_path=...)` goes on from it.

    Args:
        plans: by the names of the pruners; see `attach`.
        family: facts about the module, whose names begin with the attribute that holds the model.

    Attributes:
        hooks: the pruners on the module's optimizer; None before training.

    Raises:
        SparsityError: when training starts: a plan is impossible, the number of steps is not known, or the module has
            several optimizers.
    """

    def __init__(self, plans: Mapping[str, Plan], family: Family) -> None:
        self.plans, self.family = dict(plans), family
        self.hooks: StepHooks | None = None
        self._stored: Mapping[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the pruners: optimizers are made, and the trainer knows its steps."""
        if len(trainer.optimizers) != 1:
            reason = f"the module has {len(trainer.optimizers)} optimizers"
            raise SparsityError(reason, cure="use hooked() for one of them")
        steps = trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise SparsityError("the number of steps is not known", cure="give the Trainer max_steps or max_epochs")
        batches = trainer.num_training_batches
        counted = batches != float("inf")
        per_epoch = max(1, -(-int(batches) // trainer.accumulate_grad_batches)) if counted else int(steps)
        pruners = attach(pl_module, self.plans, self.family, int(steps), per_epoch)
        log.info("pruned: %s", coverage(pl_module, pruners, self.family))
        self.hooks = hooked(pruners, trainer.optimizers[0], self._stored)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off; a warning says if the target is not reached."""
        if self.hooks is not None:
            self.hooks.remove()

    def state_dict(self) -> dict[str, Any]:
        """The state of the pruners, which Lightning saves with every checkpoint."""
        return {} if self.hooks is None else self.hooks.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until training starts."""
        self._stored = state_dict or None
