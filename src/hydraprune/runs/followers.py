"""The other processes of a run: they train along with the first, which alone writes files and speaks.

The first process executes the run as if it were alone. Before a training, its own or that of the dense run, it hands
out what to train and from where; the others set the same up, train in step with it, and wait for the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from hydraprune.errors import UserError, one_line
from hydraprune.runs import setup
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.setup import TaskLoader
from hydraprune.tracking import Silent
from hydraprune.training.checkpoints import NoCheckpoints, Start
from hydraprune.training.clock import Clock
from hydraprune.training.loop import fit
from hydraprune.training.processes import Processes
from hydraprune.utils import signals
from hydraprune.utils.process_start import ProcessStart

# The first process may train a dense run, or wait for another run, while the others wait for it; a process that ends
# closes its connections, and the others know at once.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Order:
    """A training that all processes are to take part in.

    Args:
        hash: of the run.
        dense: folder or id of the model that it starts from, see `setup.prepare`.
        start: where it begins.
    """

    hash: str
    dense: str | None
    start: Start


@contextmanager
def joined_processes(start: ProcessStart, experiment: Experiment) -> Iterator[Processes]:
    """A context in which this process has joined the group of its run, if it is one of several.

    Raises:
        UserError: the run cannot be divided, or the others do not answer.
    """
    if start.count == 1:
        yield Processes()
        return
    _check(experiment, start)
    start.export(os.environ)  # type: ignore[arg-type]
    is_cuda = torch.cuda.is_available() and experiment.components.settings.device != "cpu"
    if is_cuda:
        torch.cuda.set_device(start.local_rank % torch.cuda.device_count())
    if start.rank:
        logging.disable(logging.INFO)
    try:
        dist.init_process_group("nccl" if is_cuda else "gloo", timeout=_PATIENCE)
    except Exception as error:
        raise UserError(
            f"the {start.count} processes do not find each other ({one_line(error)})",
            key="MASTER_ADDR",
            value=os.environ.get("MASTER_ADDR"),
            cure="give the name of the first machine, and a free port as MASTER_PORT",
        ) from None
    try:
        yield Processes.current()
    finally:
        dist.destroy_process_group()


def _check(experiment: Experiment, start: ProcessStart) -> None:
    """Refuse what only a single process can do."""
    runs = [experiment] if experiment.dense is None else [experiment, experiment.dense]
    if any(each.components.settings.cuda_graphs for each in runs):
        reason = f"graphs are captured for one process, and {start.starter} started {start.count}"
        raise UserError(reason, key="training.cuda_graphs", value=True, cure="leave it out")


def follow(experiment: Experiment, load_data: TaskLoader, processes: Processes) -> None:
    """Take part in the trainings that the first process hands out, until it hands out none.

    Raises:
        Stopped: a process was asked to stop.
        UserError: the training failed, as it did in the first process.
    """
    while (order := _next_order(processes)) is not None:
        dense = experiment.dense
        run = dense if dense is not None and order.hash == dense.spec.hash else experiment
        prepared = setup.prepare(run, order.dense, load_data, order.start.threads)
        with signals.deferred():
            fit(prepared.training(Silent()), Clock(), order.start, NoCheckpoints())


def _next_order(processes: Processes) -> Order | None:
    found: Any = processes.hand_out()
    return found if isinstance(found, Order) else None
