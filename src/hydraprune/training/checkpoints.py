"""Checkpoints: saving and restoring the state of a training, so that a resumed run ends with the same bits.

A checkpoint is taken between two steps and holds everything that later steps depend on.
"""

from __future__ import annotations

import logging
import math
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.training.clock import Clock
from hydraprune.training.progress import Progress
from hydraprune.training.setup import TrainingSetup
from hydraprune.utils.atomic import sync
from hydraprune.utils.tensor_io import StateError, read_state, write_state

# The largest share of training time that writing checkpoints may take: on a slow disk, or with very short epochs,
# some are left out.
SHARE = 0.02
# Most seconds of work that a power cut may cost, however long an epoch takes.
LONGEST = 600.0
# Raise with every change in what is kept or how a training resumes from it.
_FORMAT_VERSION = 5

# The fields of `Progress` that JSON can hold.
_COUNTERS = ("step", "evaluated", "skipped", "final", "best")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FreshStart:
    """The start of a training without a usable checkpoint. Attributes as in `Checkpoint`."""

    step: int = 0
    metrics_size: int = 0
    threads: int | None = None

    def restore(self, setup: TrainingSetup, clock: Clock) -> Progress:
        """Progress zero; changes nothing."""
        return Progress()


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that was found intact.

    Args:
        stamp: of the run, as in `Checkpoints`.
        step: optimizer steps taken before it.
        metrics_size: bytes of the metrics file at that step.
        threads: of the processes that ran so far; another number would change the bits of sums.
    """

    path: Path
    stamp: Mapping[str, Any]
    step: int
    metrics_size: int
    threads: int

    def restore(self, setup: TrainingSetup, clock: Clock) -> Progress:
        """Load the state into a training that was just set up, and count the time it has taken so far.

        Raises:
            StateError, SparsityError, ValueError: the state is of another model, optimizer or pruner.
        """
        # Read again rather than kept since it was found: memory may be short while a model is built.
        state = read_state(self.path, self.stamp)
        _load_state(setup, state)
        clock.add(state["seconds"])
        log.info("Resuming from step %s of %s (%s)", f"{self.step:,}", f"{setup.steps:,}", self.path)
        progress = Progress(**state["progress"])
        progress.losses = [torch.tensor(loss, device=_device(setup)) for loss in state["losses"]]
        return progress


Start = FreshStart | Checkpoint


class Checkpoints:
    """The checkpoints of one run, of which the latest few are kept.

    Args:
        folder: for checkpoints only; made with the first one.
        stamp: must be equal for a run to resume from a checkpoint; JSON.
        metrics: the metrics file, which grows with the training.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, Any], metrics: Path) -> None:
        self.folder, self.metrics = folder, metrics
        self.stamp = {**stamp, "form": _FORMAT_VERSION}
        self._intact: list[Path] = []
        self._not_before = 0.0
        self._last_saved = time.perf_counter()

    def latest(self) -> Start:
        """The latest usable checkpoint; an unusable one is skipped with a line in the log."""
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            try:
                state = read_state(path, self.stamp)
                if not self.metrics.is_file() or self.metrics.stat().st_size < state["lines"]:
                    raise StateError(f"{self.metrics.name} lacks lines that were written before it")
            except (OSError, StateError) as error:
                log.warning("Cannot use checkpoint %s (%s): trying the one before", path, error)
                continue
            self._intact = [path]
            return Checkpoint(path, self.stamp, state["progress"]["step"], state["lines"], state["threads"])
        return FreshStart()

    def save_if_due(self, setup: TrainingSetup, progress: Progress, clock: Clock) -> None:
        """Save a checkpoint if one is due after the step just taken."""
        if self._is_due(setup, progress.step):
            self.save(setup, progress, clock)

    def save(self, setup: TrainingSetup, progress: Progress, clock: Clock) -> bool:
        """Save a checkpoint between two steps.

        Returns:
            Whether it was written. If not, a warning is logged, and the training continues.
        """
        spent, start = clock.spent(), time.perf_counter()
        written = True
        with clock.measure("other"):
            try:
                self._write(setup, progress, spent)
            except (OSError, StateError) as error:
                written = False
                log.warning("No checkpoint at step %d (%s): training continues without it", progress.step, error)
        self._last_saved = time.perf_counter()
        self._not_before = self._last_saved + (self._last_saved - start) * (1 / SHARE - 1)
        return written

    def _is_due(self, setup: TrainingSetup, step: int) -> bool:
        now = time.perf_counter()
        # Not at the last step: the model itself is saved next.
        if setup.settings.checkpoint_every is None or step >= setup.steps or now < self._not_before:
            return False
        return step % setup.settings.checkpoint_steps(setup.steps_per_epoch) == 0 or now - self._last_saved >= LONGEST

    def _write(self, setup: TrainingSetup, progress: Progress, spent: Mapping[str, float]) -> None:
        self.folder.mkdir(exist_ok=True)
        # The metrics up to here must survive a power cut too.
        run = {"seconds": spent, "lines": sync(self.metrics), "threads": torch.get_num_threads()}
        path = self.folder / f"step-{progress.step:09d}.safetensors"
        write_state({**_state(setup, progress), **run}, self.stamp, path)
        self._intact = [*(other for other in self._intact if other != path), path][-setup.settings.keep_checkpoints :]
        # Also unusable checkpoints, and temporary files of killed processes.
        for file in {*self.folder.glob("step-*.safetensors"), *self.folder.glob(".*")} - set(self._intact):
            file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove all checkpoints: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


class NoCheckpoints:
    """For a process that writes no files."""

    def save_if_due(self, setup: TrainingSetup, progress: Progress, clock: Clock) -> None:
        """Write nothing."""

    def save(self, setup: TrainingSetup, progress: Progress, clock: Clock) -> bool:
        """Write nothing."""
        return False


def _device(setup: TrainingSetup) -> torch.device:
    device: torch.device = setup.accelerator.device
    return device


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model, each once; also those that `state_dict` leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _state(setup: TrainingSetup, progress: Progress) -> dict[str, Any]:
    """Everything that steps change and later steps depend on.

    Raises:
        StateError: a loss is not finite. The next log line will end the run, which should not be resumed from here.
    """
    losses = [float(loss) for loss in progress.losses]
    if not all(map(math.isfinite, losses)):
        raise StateError("the loss is not finite")
    setup.sparse_steps.write()
    return {
        "progress": {field: getattr(progress, field) for field in _COUNTERS},
        "losses": losses,
        "model": _tensors(setup.model),
        "optimizer": setup.optimizer.state_dict(),
        "lr_scheduler": setup.lr_scheduler.state_dict(),
        "pruners": {pruner.name: pruner.state_dict() for pruner in setup.pruners},
        "sparse_steps": setup.sparse_steps.state_dict(),
        "scaler": _scaler(setup).state_dict(),
        "random": _random_state(_device(setup)),
    }


def _scaler(setup: TrainingSetup) -> torch.amp.GradScaler:
    """The loss scaler; a disabled one where the loss is not scaled."""
    return setup.accelerator.scaler or torch.amp.GradScaler("cpu", enabled=False)


@torch.no_grad()
def _load_state(setup: TrainingSetup, state: Mapping[str, Any]) -> None:
    """The inverse of `_state`, on a training that was just set up.

    Raises:
        StateError, SparsityError, ValueError: the state is of another model, optimizer or pruner.
    """
    tensors, pruners = _tensors(setup.model), {pruner.name: pruner for pruner in setup.pruners}
    shapes = [{name: value.shape for name, value in side.items()} for side in (tensors, state["model"])]
    if shapes[0] != shapes[1] or pruners.keys() != state["pruners"].keys():
        raise StateError("the checkpoint has other weights or pruners than this run; remove it to start over")
    for name, tensor in tensors.items():
        tensor.copy_(state["model"][name])
    for name, pruner in pruners.items():
        pruner.load_state_dict(state["pruners"][name])
    setup.optimizer.load_state_dict(setup.sparse_steps.whole_state(setup.optimizer, state["optimizer"]))
    setup.sparse_steps.load_state_dict(state["sparse_steps"])
    setup.lr_scheduler.load_state_dict(state["lr_scheduler"])
    _scaler(setup).load_state_dict(state["scaler"])
    _set_random_state(_device(setup), state["random"])


def _random_state(device: torch.device) -> dict[str, Any]:
    """The random generators that a step draws from: Python's, and torch's on the CPU and on the device."""
    state = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def _set_random_state(device: torch.device, state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])
