"""One training, from its first step or from where it was cut to the last. Two touches of the pruners per step."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from itertools import islice

import torch

from hydraprune.data.batches import Batch
from hydraprune.training.checkpoints import Beginning, Checkpoints, Start
from hydraprune.training.evaluation import evaluate
from hydraprune.training.nan_guard import refuse_nonfinite, refuse_step
from hydraprune.training.state import Progress, Run
from hydraprune.training.step import Clock, take_step
from hydraprune.utils import signals as stopping

log = logging.getLogger(__name__)


def fit(run: Run, clock: Clock, start: Start, checkpoints: Checkpoints) -> Progress:
    """Train, prune and evaluate after every epoch; with no epoch at all, prune and evaluate once.

    Once a pruner has masked a weight, that weight is zero after every step: what is evaluated is
    what is saved. Asked to stop (`hydraprune.utils.signals`), it keeps a checkpoint first.

    Args:
        start: the beginning, or a checkpoint of this very run.

    Raises:
        Stopped: it was asked to stop.
        UserError: a loss, or what the model answers, is not finite.
    """
    with clock.measure("other"):
        progress = start.restore(run, clock)
    if isinstance(start, Beginning):
        for pruner in run.pruners:
            pruner.project(0, run.optimizer)
    while True:
        try:
            _go_on(run, progress, clock, checkpoints)
            return progress
        except stopping.Stopped as error:
            # Raised between two steps only, or in an evaluation, which is then still owed.
            if checkpoints.keep(run, progress, clock):
                log.info("Stopped after step %s of %s, with a checkpoint", f"{progress.step:,}", f"{run.steps:,}")
            stopping.leave(error)


def _go_on(run: Run, progress: Progress, clock: Clock, checkpoints: Checkpoints) -> None:
    run.model.train()
    if progress.evaluated < progress.step:
        _evaluate_if_due(run, progress, clock)
    while progress.step < run.steps:
        for batches in _rest_of_epoch(run, progress.step):
            _step(run, batches, progress, clock)
            _note(run, progress)
            _evaluate_if_due(run, progress, clock)
            # Nothing of this step is left to be done, so the number of steps says all about where a run goes on.
            checkpoints.passed(run, progress, clock)
            stopping.check()
    if not run.steps:
        _evaluate(run, progress, clock, _sparsity(run))


def _step(run: Run, batches: list[Batch], progress: Progress, clock: Clock) -> None:
    loss = take_step(run, batches, progress.step, clock)
    progress.step += 1
    if loss is not None:
        progress.losses.append(loss)
        return
    progress.skipped += 1
    if progress.skipped > run.settings.skip_nonfinite:
        refuse_step(run, progress.step - 1)
    log.warning("Step %d passed over: its loss or its gradients are not finite", progress.step - 1)


def _rest_of_epoch(run: Run, step: int) -> Iterator[list[Batch]]:
    """Per step the batches that it takes, from the `step`-th of the training to the end of its epoch."""
    epoch, taken = divmod(step, run.steps_per_epoch)
    size = run.settings.accumulation
    batches = run.train.epoch(epoch, taken * size)
    while group := list(islice(batches, size)):
        yield group


def _note(run: Run, progress: Progress) -> None:
    """The line of metrics that is due after a step."""
    if progress.step % run.settings.log_every == 0 or progress.step == run.steps:
        refuse_nonfinite(run, progress)
        run.tracker.log(_line(run, progress), progress.step)
        progress.losses.clear()


def _evaluate_if_due(run: Run, progress: Progress, clock: Clock) -> None:
    """The evaluation after an epoch's last step."""
    if progress.step % run.steps_per_epoch == 0:
        _evaluate(run, progress, clock, {})


def _evaluate(run: Run, progress: Progress, clock: Clock, beside: Mapping[str, float]) -> None:
    """Score the model, and log that with what else there is to say."""
    epoch = progress.step // run.steps_per_epoch
    with clock.measure("eval"):
        refuse_nonfinite(run, progress)
        final = progress.final = evaluate(run.model, run.evaluations, run.score, run.accelerator)
        progress.evaluated = progress.step
    run.tracker.log(
        {"epoch": epoch, **{f"eval/{name}": value for name, value in final.items()}, **beside}, progress.step
    )
    for pruner in run.pruners:
        if emptied := pruner.emptied:
            log.warning(
                "pruner %s: %d of its layers have no weight left (%s); to keep some in each, lower cap below 1",
                pruner.name,
                len(emptied),
                ", ".join(emptied),
            )
    at_target = all(progress.step >= pruner.updates.last for pruner in run.pruners)
    if at_target and (not progress.best or _better(final[run.headline], progress.best[run.headline])):
        progress.best = {**final, "epoch": epoch}


def _line(run: Run, progress: Progress) -> dict[str, float]:
    """A line of metrics; the losses are read from the device only here."""
    losses = progress.losses or [torch.tensor(math.nan)]  # where every step was passed over
    values = {"train/loss": float(torch.stack(losses).mean())}
    values["train/lr"] = float(run.lr_scheduler.get_last_lr()[0])
    if progress.skipped:
        values["train/skipped"] = progress.skipped
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
