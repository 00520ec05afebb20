"""NaN guard: a non-finite loss ends the training with one line that names the step, its examples and likely causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from hydraprune.data.batches import Batch
from hydraprune.errors import UserError
from hydraprune.training.progress import Progress
from hydraprune.training.setup import TrainingSetup

# Examples of a step that an error lists.
_MOST_LISTED = 16


def check_losses(setup: TrainingSetup, progress: Progress) -> None:
    """Check the losses since the last log line; waits for their device.

    Raises:
        UserError: one is not finite.
    """
    if not progress.losses:
        return
    broken = (~torch.stack(progress.losses).isfinite()).nonzero()
    if len(broken):
        refuse_step(setup, progress.step - len(progress.losses) + int(broken[0]))


def refuse_step(setup: TrainingSetup, step: int) -> NoReturn:
    """End the training because of a non-finite step, counted from 0.

    Raises:
        UserError: naming the step, its examples, the cause as far as it can be found, and what to try.
    """
    setup.sparse_steps.write()
    batches = next(setup.batches_from(step))
    indices = sorted(int(index) for batch in batches for index in batch.indices)
    more = f" and {len(indices) - _MOST_LISTED} more" if len(indices) > _MOST_LISTED else ""
    listed = ", ".join(map(str, indices[:_MOST_LISTED])) + more
    cause, cure = _diagnosis(setup, batches)
    raise UserError(
        f"step {step} of {setup.steps}: the loss or its gradients are not finite, of training examples {listed} "
        f"(counted from 0); {cause}",
        cure=cure,
    )


def first_nonfinite(model: nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or infinity; None if all are finite."""
    return next(iter(_nonfinite(model)), None)


def _nonfinite(model: nn.Module) -> list[str]:
    return [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]


@torch.no_grad()
def _diagnosis(setup: TrainingSetup, batches: Sequence[Batch]) -> tuple[str, str]:
    """(cause, cure)."""
    for batch in batches:
        outputs = setup.teacher.outputs(batch.to(setup.accelerator.device))
        if outputs is not None and (row := _first_nonfinite_row(outputs)) is not None:
            return (
                f"the teacher's output for example {int(batch.indices[row])} is not finite",
                "check distill.teacher or the dense model, or use distill=none",
            )
    broken = _nonfinite(setup.model)
    largest = max(float(weight.abs().max()) for weight in setup.model.parameters())
    cause = f"the weights still are, and reach {largest:.3g}"
    if broken:
        cause = f"by now {len(broken)} weights are not finite either, {broken[0]} among them"
    remedies = [f"a lower optimizer.lr (now {float(setup.optimizer.param_groups[0]['lr']):.3g})"]
    if setup.settings.max_grad_norm is None:
        remedies.append("training.max_grad_norm=1")
    if setup.settings.precision != "fp32":
        remedies.append("training.precision=fp32")
    if not broken:
        more = max(3, 2 * setup.settings.skip_nonfinite)
        remedies.append(f"a look at these examples, or training.skip_nonfinite={more} to skip such steps")
    return cause, f"try {', '.join(remedies)}"


def _first_nonfinite_row(outputs: Tensor) -> int | None:
    found = (~outputs.flatten(1).isfinite().all(-1)).nonzero()
    return int(found[0]) if len(found) else None
