"""Pruning in Hugging Face's `Trainer`: a callback, with its state in the checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hydraprune.models.families import family_of_model
from hydraprune.sparsity import Family, Plan, SparsityError, StepHooks, attach, coverage, hooked
from hydraprune.utils.tensor_io import read_state, write_state

log = logging.getLogger(__name__)

# Of a checkpoint's folder.
STATE_FILE = "pruners.safetensors"
_STAMP = {"made_by": "hydraprune.integrations.trainer"}


class PruningCallback(TrainerCallback):  # type: ignore[misc]
    """Prunes the model that a `Trainer` trains.

        plan = block(4, 1, target_sparsity=0.9).parts["4x1"]
        plan = plan.completed(SnipMomentum(), Exp(warmup="1ep", cooldown="1ep"))
        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PruningCallback({"4x1": plan})])
        trainer.train()

    Layers and roles are found from the model's structure. Every checkpoint gets a file of the pruners' state, from
    which `trainer.train(resume_from_checkpoint=...)` goes on.

    Args:
        plans: by the names of the pruners; see `attach`.
        family: facts about the model; None: found from its structure.

    Attributes:
        hooks: the pruners on the trainer's optimizer; None before training.

    Raises:
        SparsityError, StateError: when training begins: a plan is impossible, or a checkpoint's state is missing or
            damaged.
    """

    def __init__(self, plans: Mapping[str, Plan], family: Family | None = None) -> None:
        self.plans, self.family = dict(plans), family
        self.hooks: StepHooks | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Attach the pruners: the trainer has its optimizer, and knows its steps."""
        assert model is not None
        assert optimizer is not None
        family = self.family or _family(model)
        per_epoch = max(1, round(state.max_steps / max(1e-9, float(args.num_train_epochs))))
        if args.max_steps > 0:
            per_epoch = state.max_steps  # the number of epochs follows from the steps then
        pruners = attach(model, self.plans, family, state.max_steps, per_epoch)
        log.info("pruned: %s", coverage(model, pruners, family))
        self.hooks = hooked(pruners, optimizer, _stored(args, state) if state.global_step else None)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save the state of the pruners beside the trainer's."""
        if self.hooks is not None and state.is_world_process_zero:
            write_state(self.hooks.state_dict(), _STAMP, _folder(args, state) / STATE_FILE)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the hooks off; a warning says if the target is not reached."""
        if self.hooks is not None:
            self.hooks.remove()


def _family(model: nn.Module) -> Family:
    inner = getattr(model, "module", model)
    return replace(family_of_model(inner), heads=getattr(inner.config, "num_attention_heads", None))


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _stored(args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
    given = args.resume_from_checkpoint
    folder = Path(given) if isinstance(given, str) and Path(given).is_dir() else _folder(args, state)
    if not (folder / STATE_FILE).is_file():
        raise SparsityError(
            f"the checkpoint of step {state.global_step} has no {STATE_FILE}, so its masks are not known",
            key="resume_from_checkpoint",
            value=str(folder),
            cure="resume from one that was saved with this callback, or start anew",
        )
    stored: dict[str, Any] = read_state(folder / STATE_FILE, _STAMP)
    return stored
