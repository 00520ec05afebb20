"""One training, from its first step or from where it was cut to the last. Two touches of the pruners per step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice

import torch

from hydraprune.training.batches import Batch
from hydraprune.training.checkpoints import Checkpoints, Start
from hydraprune.training.contracts import Progress, Run
from hydraprune.training.evaluation import evaluate
from hydraprune.training.step import Clock, take_step


def fit(run: Run, clock: Clock, start: Start, checkpoints: Checkpoints) -> Progress:
    """Train, prune and evaluate after every epoch; with no epoch at all, prune and evaluate once.

    Once a pruner has masked a weight, that weight is zero after every step: what is evaluated is
    what is saved.

    Args:
        start: the beginning, or a checkpoint of this very run.
    """
    with clock.measure("other"):
        progress = start.restore(run, clock)
    if not progress.step:
        for pruner in run.pruners:
            pruner.project(0, run.optimizer)
    run.model.train()
    while progress.step < run.steps:
        for batches in _rest_of_epoch(run, progress.step):
            progress.losses.append(take_step(run, batches, progress.step, clock))
            progress.step += 1
            _note(run, progress, clock)
            # Nothing of this step is left to be done, so the number of steps says all about where a run goes on.
            checkpoints.passed(run, progress, clock)
    if not run.steps:
        _evaluate(run, progress, clock, _sparsity(run))
    return progress


def _rest_of_epoch(run: Run, step: int) -> Iterator[list[Batch]]:
    """Per step the batches that it takes, from the `step`-th of the training to the end of its epoch."""
    epoch, taken = divmod(step, run.steps_per_epoch)
    size = run.settings.accumulation
    batches = run.train.epoch(epoch, taken * size)
    while group := list(islice(batches, size)):
        yield group


def _note(run: Run, progress: Progress, clock: Clock) -> None:
    """The lines of metrics that are due after a step, and the evaluation after an epoch's last."""
    if progress.step % run.settings.log_every == 0 or progress.step == run.steps:
        run.tracker.log(_line(run, progress), progress.step)
        progress.losses.clear()
    if progress.step % run.steps_per_epoch == 0:
        _evaluate(run, progress, clock, {})


def _evaluate(run: Run, progress: Progress, clock: Clock, beside: Mapping[str, float]) -> None:
    """Score the model, and log that with what else there is to say."""
    epoch = progress.step // run.steps_per_epoch
    with clock.measure("eval"):
        final = progress.final = evaluate(run.model, run.evaluations, run.score, run.accelerator)
    run.tracker.log(
        {"epoch": epoch, **{f"eval/{name}": value for name, value in final.items()}, **beside}, progress.step
    )
    at_target = all(progress.step >= pruner.updates.last for pruner in run.pruners)
    if at_target and (not progress.best or _better(final[run.headline], progress.best[run.headline])):
        progress.best = {**final, "epoch": epoch}


def _line(run: Run, progress: Progress) -> dict[str, float]:
    """A line of metrics; the losses are read from the device only here."""
    values = {"train/loss": float(torch.stack(progress.losses).mean())}
    values["train/lr"] = float(run.lr_scheduler.get_last_lr()[0])
    return values | _sparsity(run)


def _sparsity(run: Run) -> dict[str, float]:
    """The share of the weights that masks hold at zero; nothing without a pruner."""
    if not run.pruners:
        return {}
    zeros = sum(pruner.zeros for pruner in run.pruners)
    return {"sparsity/global": zeros / sum(pruner.total for pruner in run.pruners)}


def _better(new: float, old: float) -> bool:
    """Whether `new` is the higher score; one that is not a number is the lowest."""
    return not math.isnan(new) and (math.isnan(old) or new > old)
