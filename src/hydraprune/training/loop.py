"""The training loop: steps, mask updates, log lines, evaluations and checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch

from hydraprune.data.batches import Batch
from hydraprune.data.metric_direction import is_better
from hydraprune.training.checkpoints import Checkpoints, FreshStart, NoCheckpoints, Start
from hydraprune.training.clock import Clock
from hydraprune.training.evaluation import evaluate
from hydraprune.training.nan_guard import check_losses, refuse_step
from hydraprune.training.processes import LostProcess
from hydraprune.training.progress import Progress
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.step import take_step
from hydraprune.utils import signals

log = logging.getLogger(__name__)


def fit(setup: TrainingSetup, clock: Clock, start: Start, checkpoints: Checkpoints | NoCheckpoints) -> Progress:
    """Train, prune and evaluate after every epoch; with no epoch at all, prune and evaluate once.

    A masked weight is zero after every step, so the model that is evaluated is the model that is
    saved. When asked to stop (`hydraprune.utils.signals`), a checkpoint is saved first.

    Args:
        start: the beginning, or a checkpoint of this run.

    Raises:
        Stopped: the process was asked to stop.
        UserError: a loss or an output of the model is not finite.
    """
    with clock.measure("other"):
        progress = start.restore(setup, clock)
    if isinstance(start, FreshStart):
        for pruner in setup.pruners:
            pruner.project(0, setup.optimizer)
    setup.sparse_steps.follow(progress.step)
    while True:
        try:
            _train(setup, progress, clock, checkpoints)
            setup.sparse_steps.write()
            return progress
        except signals.Stopped as error:
            # Raised only between two steps or during an evaluation, which then runs after resuming; but where another
            # process has ended, perhaps in the middle of a step.
            if not isinstance(error, LostProcess) and checkpoints.save(setup, progress, clock):
                log.info("Stopped after step %s of %s, with a checkpoint", f"{progress.step:,}", f"{setup.steps:,}")
            signals.stop(error)


def _train(setup: TrainingSetup, progress: Progress, clock: Clock, checkpoints: Checkpoints | NoCheckpoints) -> None:
    setup.model.train()
    if progress.evaluated < progress.step:
        _evaluate_if_due(setup, progress, clock)
    while progress.step < setup.steps:
        for batches in setup.batches_from(progress.step):
            _step(setup, batches, progress, clock)
            _log_if_due(setup, progress)
            _evaluate_if_due(setup, progress, clock)
            # Everything due after this step is done, so the step number alone says where to resume.
            checkpoints.save_if_due(setup, progress, clock)
            setup.processes.check_signals()
    if not setup.steps:
        _evaluate(setup, progress, clock, _sparsity(setup))


def _step(setup: TrainingSetup, batches: list[Batch], progress: Progress, clock: Clock) -> None:
    loss = take_step(setup, batches, progress.step, clock)
    progress.step += 1
    if loss is not None:
        progress.losses.append(loss)
        return
    progress.skipped += 1
    if progress.skipped > setup.settings.skip_nonfinite:
        refuse_step(setup, progress.step - 1)
    log.warning("Step %d skipped: its loss or gradients are not finite", progress.step - 1)


def _log_if_due(setup: TrainingSetup, progress: Progress) -> None:
    if progress.step % setup.settings.log_every == 0 or progress.step == setup.steps:
        check_losses(setup, progress)
        setup.tracker.log(_training_metrics(setup, progress), progress.step)
        progress.losses.clear()


def _evaluate_if_due(setup: TrainingSetup, progress: Progress, clock: Clock) -> None:
    """Evaluate after the last step of an epoch."""
    if progress.step % setup.steps_per_epoch == 0:
        _evaluate(setup, progress, clock, {})


def _evaluate(setup: TrainingSetup, progress: Progress, clock: Clock, extra: Mapping[str, float]) -> None:
    """Evaluate the model and log its scores, with `extra` metrics beside them."""
    epoch = progress.step // setup.steps_per_epoch
    with clock.measure("eval"):
        check_losses(setup, progress)
        final = progress.final = evaluate(
            setup.model, setup.evaluations, setup.score, setup.accelerator, setup.processes
        )
        progress.evaluated = progress.step
    setup.tracker.log(
        {"epoch": epoch, **{f"eval/{name}": value for name, value in final.items()}, **extra}, progress.step
    )
    for pruner in setup.pruners:
        if emptied := pruner.emptied:
            log.warning(
                "pruner %s: %d of its layers have no weight left (%s); to keep some in each, lower cap below 1",
                pruner.name,
                len(emptied),
                ", ".join(emptied),
            )
    at_target = all(progress.step >= pruner.updates.last for pruner in setup.pruners)
    if at_target and (
        not progress.best or is_better(final[setup.headline], progress.best[setup.headline], setup.headline)
    ):
        progress.best = {**final, "epoch": epoch}


def _training_metrics(setup: TrainingSetup, progress: Progress) -> dict[str, float]:
    """The metrics of a log line; only here are losses read from the device."""
    losses = progress.losses or [torch.tensor(math.nan)]  # every step was skipped
    values = {"train/loss": float(torch.stack(losses).mean())}
    values["train/lr"] = float(setup.lr_scheduler.get_last_lr()[0])
    if progress.skipped:
        values["train/skipped"] = progress.skipped
    return values | _sparsity(setup)


def _sparsity(setup: TrainingSetup) -> dict[str, float]:
    """The share of weights that the masks hold at zero; empty without pruners."""
    if not setup.pruners:
        return {}
    zeros = sum(pruner.zeros for pruner in setup.pruners)
    return {"sparsity/global": zeros / sum(pruner.total for pruner in setup.pruners)}
