"""One optimizer step: forward, teacher, backward, clipping, pruning."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from hydraprune.data.batches import Batch
from hydraprune.training.clock import Clock
from hydraprune.training.setup import TrainingSetup


def take_step(setup: TrainingSetup, batches: list[Batch], step: int, clock: Clock) -> Tensor | None:
    """Take one optimizer step over one or more accumulated batches.

    A step whose loss or gradients are found not to be finite changes no weight. The host waits for
    an accelerator only if such steps may be skipped (`skip_nonfinite`); otherwise they are found
    with the next log line.

    Args:
        step: number of this step, from 0.

    Returns:
        The mean loss of the examples, a scalar on the device; None if it or the gradients are not finite.
    """
    begin = time.perf_counter()
    processes = setup.processes
    processes.seed_step(setup.train.shuffle_seed, step)
    total = torch.zeros((), device=setup.accelerator.device)
    examples = sum(len(batch.labels) for batch in batches)
    for whole in batches:
        part = processes.share(whole)
        share = 1.0 if part is whole or part is None else setup.distiller.counted(part) / setup.distiller.counted(whole)
        if part is None or not share:
            continue  # fewer examples, or fewer with a target, than processes
        batch = part.to(setup.accelerator.device)
        with clock.measure("teacher"), setup.accelerator.autocast():
            teacher_outputs = setup.teacher.outputs(batch)
        # Each example weighs the same, also where the last batch of an epoch is shorter.
        total += setup.backward(batch, teacher_outputs, examples / len(whole.labels) / share)
    total = processes.add_up(setup.optimizer, total)
    # Scores and clipping need unscaled gradients; does nothing without a loss scaler.
    setup.accelerator.unscale_gradients(setup.optimizer)
    norm = None
    if setup.settings.max_grad_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(setup.model.parameters(), setup.settings.max_grad_norm)
    finite = _is_finite(setup, total, norm)
    # Packed weights are not masked any more, and masks are final.
    pruners = () if setup.sparse_steps.packed else setup.pruners
    if finite:
        for pruner in pruners:
            pruner.observe(step)
    # A loss scaler skips such a step itself, and adjusts its scale by it.
    if finite or setup.accelerator.scaler is not None:
        setup.optimizer.step()
    # Before the scheduler's step: with the learning rate of the step just taken.
    updated = [pruner.project(step + 1, setup.optimizer) for pruner in pruners]
    setup.lr_scheduler.step()
    setup.optimizer.zero_grad(set_to_none=True)
    setup.sparse_steps.count(sum(batch.tokens for batch in batches), time.perf_counter() - begin)
    if any(updated) and not processes.alone:
        processes.check_equal(_state(setup), step)
    if any(updated) or setup.sparse_steps.is_due(step + 1):
        setup.sparse_steps.follow(step + 1)
    return total if finite else None


def _state(setup: TrainingSetup) -> Iterator[Tensor]:
    """What must be the same in all processes."""
    for pruner in setup.pruners:
        yield from pruner.masks.values()
    yield from setup.model.state_dict().values()


def _is_finite(setup: TrainingSetup, loss: Tensor, norm: Tensor | None) -> bool:
    """Whether loss and gradients are finite, as far as this is known without an unwanted wait for the device."""
    may_skip = setup.settings.skip_nonfinite > 0
    if loss.device.type != "cpu" and not may_skip:
        return True
    if setup.accelerator.scaler is not None:
        norm = None  # a scaler provokes gradients that overflow, and skips these steps itself
    elif norm is None and may_skip:
        weights = [weight for group in setup.optimizer.param_groups for weight in group["params"]]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    return bool((loss if norm is None else loss + norm).isfinite())
