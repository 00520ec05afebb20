"""A loss that is no number ends a training, and the line that says so names where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from hydraprune.data.batches import Batch
from hydraprune.errors import UserError
from hydraprune.training.state import Progress, Run

# Of the examples of a step, so many are named.
_MANY = 16


def refuse_nonfinite(run: Run, progress: Progress) -> None:
    """Look at the losses since the last line of metrics; waits for the device on which they are.

    Raises:
        UserError: one is not finite.
    """
    if not progress.losses:
        return
    broken = (~torch.stack(progress.losses).isfinite()).nonzero()
    if len(broken):
        refuse_step(run, progress.step - len(progress.losses) + int(broken[0]))


def refuse_step(run: Run, step: int) -> NoReturn:
    """End the training for a step, counted from 0, that is not finite.

    Raises:
        UserError: saying which, of which examples, why as far as can be told, and what to try.
    """
    batches = _batches(run, step)
    indices = sorted(int(index) for batch in batches for index in batch.indices)
    shown = ", ".join(map(str, indices[:_MANY])) + (f" and {len(indices) - _MANY} more" if len(indices) > _MANY else "")
    raise UserError(
        f"step {step} of {run.steps}: the loss or its gradients are not finite, of training examples {shown} (counted "
        f"from 0); {_why(run, batches)}"
    )


def _batches(run: Run, step: int) -> Sequence[Batch]:
    epoch, taken = divmod(step, run.steps_per_epoch)
    first, size = taken * run.settings.accumulation, run.settings.accumulation
    return [run.train.batch(indices) for indices in run.train.order(epoch)[first : first + size]]


@torch.no_grad()
def _why(run: Run, batches: Sequence[Batch]) -> str:
    for batch in batches:
        answers = run.teacher.answers(batch.to(run.accelerator.device))
        if answers is not None and (example := _first_broken(answers)) is not None:
            return (
                f"the teacher's answer to example {int(batch.indices[example])} is not: look at distill.teacher, or at "
                f"the dense model, or say distill=none"
            )
    broken = [name for name, weight in run.model.named_parameters() if not bool(weight.isfinite().all())]
    largest = max(float(weight.abs().max()) for weight in run.model.parameters())
    why = f"the weights still are, and reach {largest:.3g}"
    if broken:
        why = f"{len(broken)} weights are not by now, {broken[0]} among them"
    tries = [f"a lower optimizer.lr (now {_rate(run):.3g})"]
    if run.settings.max_grad_norm is None:
        tries.append("training.max_grad_norm=1")
    if run.settings.precision != "fp32":
        tries.append("training.precision=fp32")
    if not broken:
        more = run.settings.skip_nonfinite
        tries.append(f"a look at these examples, or training.skip_nonfinite={max(3, 2 * more)} to pass over such steps")
    return f"{why}; try {', '.join(tries)}"


def _first_broken(answers: Tensor) -> int | None:
    found = (~answers.flatten(1).isfinite().all(-1)).nonzero()
    return int(found[0]) if len(found) else None


def _rate(run: Run) -> float:
    return float(run.optimizer.param_groups[0]["lr"])
