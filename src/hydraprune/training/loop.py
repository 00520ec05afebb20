"""One training, from the first step to the last. Two touches of the pruners per step, no callbacks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from hydraprune.training.batches import Batch
from hydraprune.training.contracts import Outcome, Run
from hydraprune.training.evaluation import evaluate
from hydraprune.training.step import Clock, take_step


def fit(run: Run) -> Outcome:
    """Train, prune and evaluate after every epoch.

    Once a pruner has masked a weight, that weight is zero after every step: what is evaluated is
    what is saved.
    """
    clock = Clock()
    window = _Window(run)
    for pruner in run.pruners:
        pruner.project(0)
    run.model.train()
    step = 0
    final: dict[str, float] = {}
    best: dict[str, float] = {}
    for epoch in range(1, run.settings.epochs + 1):
        for batches in _grouped(run.train.epoch(epoch - 1), run.settings.accumulation):
            window.add(take_step(run, batches, step, clock))
            step += 1
            if step % run.settings.log_every == 0 or step == run.steps:
                run.tracker.log(window.flush(), step)
        with clock.measure("eval"):
            final = evaluate(run.model, run.evaluations, run.score, run.accelerator)
        run.tracker.log({"epoch": epoch, **{f"eval/{name}": value for name, value in final.items()}}, step)
        at_target = all(step >= pruner.updates.last for pruner in run.pruners)
        if at_target and (not best or _better(final[run.headline], best[run.headline])):
            best = {**final, "epoch": epoch}
    return Outcome(final, best, step, clock.seconds())


def _better(new: float, old: float) -> bool:
    """Whether `new` is the higher score; one that is not a number is the lowest."""
    return not math.isnan(new) and (math.isnan(old) or new > old)


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last one may be shorter."""
    while group := list(islice(batches, size)):
        yield group


class _Window:
    """The losses since the last line of metrics; read from the device once a line."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self.losses.append(loss)

    def flush(self) -> dict[str, float]:
        values = {"train/loss": float(torch.stack(self.losses).mean())}
        values["train/lr"] = float(self.run.lr_scheduler.get_last_lr()[0])
        if self.run.pruners:
            zeros = sum(pruner.zeros for pruner in self.run.pruners)
            values["sparsity/global"] = zeros / sum(pruner.total for pruner in self.run.pruners)
        self.losses.clear()
        return values
