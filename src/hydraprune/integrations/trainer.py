"""Pruning in Hugging Face's `Trainer`: a callback, with its state in the checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hydraprune.models.families import family_with_heads
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
        checkpoint: folder from which the trainer resumes, where that is not `checkpoint-<step>` of its `output_dir`.

    Attributes:
        hooks: the pruners on the trainer's optimizer; None before training.

    Raises:
        SparsityError, StateError: when training begins: a plan is impossible, `load_best_model_at_end` is set (the best
            model may be one from before the target is reached), or a checkpoint's state is missing, damaged or
            another run's.
    """

    def __init__(
        self, plans: Mapping[str, Plan], family: Family | None = None, checkpoint: str | Path | None = None
    ) -> None:
        self.plans, self.family = dict(plans), family
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.hooks: StepHooks | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Attach the pruners: the trainer has its optimizer, and knows its steps."""
        assert model is not None
        assert optimizer is not None
        if args.load_best_model_at_end:
            raise SparsityError(
                "the model with the best score may be one that is not pruned yet",
                key="load_best_model_at_end",
                value=True,
                cure="leave it out, and choose among checkpoints after the last mask update",
            )
        if self.hooks is not None:  # of a training that an error ended
            self.hooks.remove()
        family = self.family or family_with_heads(getattr(model, "module", model))
        per_epoch = _steps_per_epoch(args, state, train_dataloader)
        pruners = attach(model, self.plans, family, state.max_steps, per_epoch)
        log.info("pruned: %s", coverage(model, pruners, family))
        stored = self._stored(args, state) if state.global_step else None
        self.hooks = hooked(pruners, optimizer, stored)
        if stored is not None:
            _check_masks(self.hooks, state.global_step)

    def _stored(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        folder = self.checkpoint or _folder(args, state)
        if not (folder / STATE_FILE).is_file():
            raise SparsityError(
                f"the checkpoint of step {state.global_step} has no {STATE_FILE}, so its masks are not known",
                key="resume_from_checkpoint",
                value=str(folder),
                cure="give the folder as PruningCallback(plans, checkpoint=...), if it is another one; or start anew",
            )
        stored: dict[str, Any] = read_state(folder / STATE_FILE, _STAMP)
        return stored

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save the state of the pruners beside the trainer's."""
        if self.hooks is not None and state.is_world_process_zero:
            write_state(self.hooks.state_dict(), _STAMP, _folder(args, state) / STATE_FILE)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the hooks off; a warning says if the target is not reached."""
        if self.hooks is not None:
            self.hooks.remove()


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _steps_per_epoch(args: TrainingArguments, state: TrainerState, batches: Any) -> int:
    """Optimizer steps of an epoch; those of the whole training where the data has no length."""
    try:
        return max(1, -(-len(batches) // int(args.gradient_accumulation_steps)))
    except TypeError:
        return int(state.max_steps)


def _check_masks(hooks: StepHooks, step: int) -> None:
    """Refuse a state whose masks are not those of the weights that the trainer has loaded."""
    masked = [
        weight.name
        for pruner in hooks.pruners
        for weight in pruner.weights
        if (mask := pruner.masks_in_force.get(weight.name)) is not None
        and bool((weight.parameter.detach()[~mask.to(weight.parameter.device)] != 0).any())
    ]
    if masked or hooks.step != step:
        reason = f"masked weights of {masked[0]} are not zero" if masked else f"it is of step {hooks.step}, not {step}"
        hooks.remove()
        raise SparsityError(
            f"the state of the pruners is not that of the checkpoint: {reason}",
            key="resume_from_checkpoint",
            cure="give the checkpoint's folder as PruningCallback(plans, checkpoint=...)",
        )
