"""One optimizer step, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from hydraprune.data.batches import Batch
from hydraprune.training.state import Run


def take_step(run: Run, batches: list[Batch], step: int, clock: Clock) -> Tensor | None:
    """One optimizer step over one or more batches, the `step`-th counted from 0.

    A step whose loss or gradients are seen not to be finite changes no weight. Nothing waits for an
    accelerator, unless such steps are to be passed over: there they are found with the next line of metrics.

    Returns:
        The mean loss of the batches, a scalar on the device; None if it or the gradients are not finite.
    """
    total = torch.zeros((), device=run.accelerator.device)
    for cpu_batch in batches:
        batch = cpu_batch.to(run.accelerator.device)
        with run.accelerator.autocast():
            with clock.measure("teacher"):
                answers = run.teacher.answers(batch)
            loss = run.distiller.loss(run.model, batch, answers) / len(batches)
        run.accelerator.backward(loss)
        total += loss.detach()
    # Scores and clipping are of true gradients; does nothing where the loss is not scaled.
    run.accelerator.unscale_gradients(run.optimizer)
    norm = None
    if run.settings.max_grad_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.max_grad_norm)
    whole = _is_whole(run, total, norm)
    if whole:
        for pruner in run.pruners:
            pruner.observe(step)
    # A scaler of the loss passes over such a step itself, and learns from it.
    if whole or run.accelerator.scaler is not None:
        run.optimizer.step()
    for pruner in run.pruners:
        # With the learning rate of the step just made.
        pruner.project(step + 1, run.optimizer)
    run.lr_scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)
    return total if whole else None


def _is_whole(run: Run, loss: Tensor, norm: Tensor | None) -> bool:
    """Whether a step's numbers are finite, as far as that can be told without waiting for an accelerator unasked."""
    asked = run.settings.skip_nonfinite > 0
    if loss.device.type != "cpu" and not asked:
        return True
    if run.accelerator.scaler is not None:
        norm = None  # a scaler tries gradients that overflow, and passes over them itself
    elif norm is None and asked:
        gradients = [weight.grad for weight in run.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    return bool((loss if norm is None else loss + norm).isfinite())


class Clock:
    """Where the time of a run goes, its earlier pieces included if it was cut.

    On a GPU the teacher's share is the time to launch it, unless the host waits.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.parts = {"eval": 0.0, "teacher": 0.0, "other": 0.0}

    def measure(self, part: str) -> _Span:
        return _Span(self, part)

    def move(self, seconds: float, source: str, target: str) -> None:
        """Count seconds that were measured as one part as another."""
        self.parts[source] -= seconds
        self.parts[target] += seconds

    def spent(self) -> dict[str, float]:
        """{total, eval, teacher, other} until now, for `add`."""
        return {"total": time.perf_counter() - self.start, **self.parts}

    def add(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier piece of the run has spent."""
        self.start -= spent["total"]
        self.parts = {part: seconds + spent[part] for part, seconds in self.parts.items()}

    def seconds(self) -> dict[str, float]:
        """{total, train, eval, teacher}; what is none of the last three counts in the total alone."""
        total = self.spent()["total"]
        return {
            "total": total,
            "train": total - sum(self.parts.values()),
            "eval": self.parts["eval"],
            "teacher": self.parts["teacher"],
        }


class _Span:
    def __init__(self, clock: Clock, part: str) -> None:
        self.clock, self.part = clock, part

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.parts[self.part] += time.perf_counter() - self.start
