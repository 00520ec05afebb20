"""One optimizer step, and where its time goes."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from hydraprune.training.batches import Batch
from hydraprune.training.contracts import Run


def take_step(run: Run, batches: list[Batch], step: int, clock: Clock) -> Tensor:
    """One optimizer step over one or more batches, the `step`-th counted from 0.

    Nothing in it waits for an accelerator.

    Returns:
        The mean loss of the batches, a scalar on the device.
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
    if run.settings.max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.max_grad_norm)
    for pruner in run.pruners:
        pruner.observe(step)
    run.optimizer.step()
    run.lr_scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)
    for pruner in run.pruners:
        pruner.project(step + 1)
    return total


class Clock:
    """Where the time went. On a GPU the teacher's share is the time to launch it, unless the host waits."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.parts = {"eval": 0.0, "teacher": 0.0}

    def measure(self, part: str) -> _Span:
        return _Span(self, part)

    def seconds(self) -> dict[str, float]:
        """{train, eval, teacher}."""
        total = time.perf_counter() - self.start
        return {"train": total - sum(self.parts.values()), **self.parts}


class _Span:
    def __init__(self, clock: Clock, part: str) -> None:
        self.clock, self.part = clock, part

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.parts[self.part] += time.perf_counter() - self.start
