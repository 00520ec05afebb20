"""Where does a training go on that was cut? From the last state that it kept on its way.

A checkpoint is taken between two steps and holds all that the steps after it depend on, so that a
run that goes on from it ends with the bits of one that was never cut.
"""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.training.state import Progress, Run
from hydraprune.training.step import Clock
from hydraprune.utils.tensor_io import StateError, read_state, write_state

# Of the time between two checkpoints, the share that writing one may take: on a slow disk, or where
# epochs last a moment, some are passed over.
SHARE = 0.02
# Seconds of work that a power cut may cost, however long an epoch lasts.
LONGEST = 600.0
# To be raised with every change of ours that changes what is kept or how a training goes on from it.
_FORM = 4

# Of `Progress`: what JSON can hold.
_COUNTED = ("step", "evaluated", "skipped", "final", "best")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beginning:
    """Where a run starts that was not cut, or too early. Attributes as of `Checkpoint`."""

    step: int = 0
    lines: int = 0
    threads: int | None = None

    def restore(self, run: Run, clock: Clock) -> Progress:
        """Nothing is behind the run."""
        return Progress()


@dataclass(frozen=True)
class Checkpoint:
    """A state that was found whole.

    Args:
        stamp: of the run, as in `Checkpoints`.
        step: optimizer steps behind it.
        lines: bytes that the file of metrics had by then.
        threads: of the processes that came so far; with another number a sum has other bits.
    """

    path: Path
    stamp: Mapping[str, Any]
    step: int
    lines: int
    threads: int

    def restore(self, run: Run, clock: Clock) -> Progress:
        """Bring a run that was just built to where it was, and count what it has spent so far.

        Raises:
            StateError, SparsityError, ValueError: the state is of another model, optimizer or pruner.
        """
        # Read anew, not kept since it was found: while a model is built, memory may be short.
        state = read_state(self.path, self.stamp)
        _take_over(run, state)
        clock.add(state["seconds"])
        log.info("Goes on from step %s of %s (%s)", f"{self.step:,}", f"{run.steps:,}", self.path)
        progress = Progress(**state["progress"])
        progress.losses = [torch.tensor(loss, device=_device(run)) for loss in state["losses"]]
        return progress


Start = Beginning | Checkpoint


class Checkpoints:
    """The checkpoints of one run, the last few of which are kept.

    Args:
        folder: theirs alone; made with the first.
        stamp: what must be equal for one run to go on from another's checkpoint; JSON.
        lines: the file of metrics, which grows with the training.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, Any], lines: Path) -> None:
        self.folder, self.lines = folder, lines
        self.stamp = {**stamp, "form": _FORM}
        self._good: list[Path] = []
        self._not_before = 0.0
        self._last = time.perf_counter()

    def newest(self) -> Start:
        """The last checkpoint that can be used; one that cannot is passed over with a line in the log."""
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            try:
                state = read_state(path, self.stamp)
                if not self.lines.is_file() or self.lines.stat().st_size < state["lines"]:
                    raise StateError(f"{self.lines.name} lacks lines that were written before it")
            except (OSError, StateError) as error:
                log.warning("%s cannot be used (%s): taking what was kept before it", path, error)
                continue
            self._good = [path]
            return Checkpoint(path, self.stamp, state["progress"]["step"], state["lines"], state["threads"])
        return Beginning()

    def passed(self, run: Run, progress: Progress, clock: Clock) -> None:
        """Keep a checkpoint if one is due after the step that was just taken."""
        if self._due(run, progress.step):
            self.keep(run, progress, clock)

    def keep(self, run: Run, progress: Progress, clock: Clock) -> bool:
        """Keep a checkpoint between two steps; whether it is there.

        What cannot be written is said and left out: a training does not end for it.
        """
        spent, start = clock.spent(), time.perf_counter()
        kept = True
        with clock.measure("other"):
            try:
                self._keep(run, progress, spent)
            except (OSError, StateError) as error:
                kept = False
                log.warning("No checkpoint at step %d (%s): training goes on without it", progress.step, error)
        self._last = time.perf_counter()
        self._not_before = self._last + (self._last - start) * (1 / SHARE - 1)
        return kept

    def _due(self, run: Run, step: int) -> bool:
        now = time.perf_counter()
        # Not at the last step: the model itself is saved next.
        if run.settings.checkpoint_every is None or step >= run.steps or now < self._not_before:
            return False
        return step % run.settings.checkpoint_steps(run.steps_per_epoch) == 0 or now - self._last >= LONGEST

    def _keep(self, run: Run, progress: Progress, spent: Mapping[str, float]) -> None:
        self.folder.mkdir(exist_ok=True)
        beside = {"seconds": spent, "lines": _on_disk(self.lines), "threads": torch.get_num_threads()}
        state = {**_state(run, progress), **beside}
        path = self.folder / f"step-{progress.step:09d}.safetensors"
        write_state(state, self.stamp, path)
        self._good = [*(good for good in self._good if good != path), path][-run.settings.keep_checkpoints :]
        # Those that could not be used, too, and what a killed writer left.
        for file in {*self.folder.glob("step-*.safetensors"), *self.folder.glob(".*")} - set(self._good):
            file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove them all: nothing will go on from here."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _on_disk(file: Path) -> int:
    """Bytes of a file, all of which a power cut would leave from now on."""
    with file.open("rb+") as opened:  # Windows syncs no file that cannot be written
        os.fsync(opened.fileno())
        return os.fstat(opened.fileno()).st_size


def _device(run: Run) -> torch.device:
    device: torch.device = run.accelerator.device
    return device


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a model holds, each tensor once, those included that are not saved with it."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _state(run: Run, progress: Progress) -> dict[str, Any]:
    """All that the steps to come depend on and that the steps before have changed.

    Raises:
        StateError: a loss is not finite; whoever reads the losses next ends the run, and nobody should go on from here.
    """
    losses = [float(loss) for loss in progress.losses]
    if not all(map(math.isfinite, losses)):
        raise StateError("the loss is not finite")
    return {
        "progress": {field: getattr(progress, field) for field in _COUNTED},
        "losses": losses,
        "model": _tensors(run.model),
        "optimizer": run.optimizer.state_dict(),
        "lr_scheduler": run.lr_scheduler.state_dict(),
        "pruners": {pruner.name: pruner.state_dict() for pruner in run.pruners},
        "scaler": _scaler(run).state_dict(),
        "random": _random(_device(run)),
    }


def _scaler(run: Run) -> torch.amp.GradScaler:
    """The scaler of the loss; one that does nothing where the loss is not scaled."""
    return run.accelerator.scaler or torch.amp.GradScaler("cpu", enabled=False)


@torch.no_grad()
def _take_over(run: Run, state: Mapping[str, Any]) -> None:
    """The reverse of `_state`, on a run that was just built.

    Raises:
        StateError, SparsityError, ValueError: the state is of another model, optimizer or pruner.
    """
    tensors, pruners = _tensors(run.model), {pruner.name: pruner for pruner in run.pruners}
    shapes = [{name: value.shape for name, value in side.items()} for side in (tensors, state["model"])]
    if shapes[0] != shapes[1] or pruners.keys() != state["pruners"].keys():
        raise StateError("a checkpoint of this run has other weights or pruners; started again, it begins anew")
    for name, tensor in tensors.items():
        tensor.copy_(state["model"][name])
    run.optimizer.load_state_dict(state["optimizer"])
    run.lr_scheduler.load_state_dict(state["lr_scheduler"])
    for name, pruner in pruners.items():
        pruner.load_state_dict(state["pruners"][name])
    _scaler(run).load_state_dict(state["scaler"])
    _set_random(_device(run), state["random"])


def _random(device: torch.device) -> dict[str, Any]:
    """The generators that a step draws from: torch's on the CPU and on the device, and Python's."""
    state = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def _set_random(device: torch.device, state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])
