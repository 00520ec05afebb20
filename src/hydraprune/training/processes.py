"""The processes of one run: each computes a share of every batch, and all take the same optimizer steps.

Gradients and losses are summed over the processes before anything looks at them, so weights, masks and decisions are
the same in all of them; random numbers of a step follow from the seed, the step and the process. The group is that of
`torch.distributed`; without one, a run is one process.
"""

from __future__ import annotations

import signal
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.data.batches import Batch
from hydraprune.errors import UserError
from hydraprune.utils import signals
from hydraprune.utils.process_start import is_lost_connection
from hydraprune.utils.tensor_io import bytes_of

# More processes than any run has: random numbers of one process must not be those of another in a later step.
_MOST = 1 << 16


class LostProcess(signals.Stopped):
    """Another process of the run has ended, so that this one cannot go on. Not a failure: the run can be resumed."""

    def __init__(self) -> None:
        super().__init__(signal.SIGTERM)

    def __str__(self) -> str:
        return "another process of this run has ended"


@contextmanager
def _connected() -> Iterator[None]:
    """A context for calls that wait for the other processes."""
    try:
        yield
    except RuntimeError as error:
        if is_lost_connection(error):
            raise LostProcess from error
        raise


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Args:
        rank: of this process, from 0; the first one writes files, and logs.
        count: of all.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Those of the group that this process has joined; this one alone without a group."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def alone(self) -> bool:
        """Whether this process is the only one."""
        return self.count == 1

    def share(self, batch: Batch) -> Batch | None:
        """This process's part of a batch, every `count`-th example, as wide as the whole; None where there is none."""
        if self.alone:
            return batch
        examples = torch.arange(len(batch.indices) // batch.head.group)[self.rank :: self.count]
        return batch.part(examples) if len(examples) else None

    def seed_step(self, seed: int | None, step: int) -> None:
        """Let the random numbers of a step follow from the seed, the step and the process.

        Those of a single process follow one another through the whole training.
        """
        if not self.alone:
            torch.manual_seed(((seed or 0) * 1_000_003 + step) * _MOST + self.rank)

    def add_up(self, optimizer: Optimizer, loss: Tensor) -> Tensor:
        """Replace each gradient by its sum over the processes; a weight that no process has one of keeps none.

        Returns:
            The sum of the losses.
        """
        if self.alone:
            return loss
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        has = torch.tensor([float(weight.grad is not None) for weight in weights], device=loss.device)
        parts = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in weights]
        flat = torch.cat([*(part.reshape(-1).float() for part in parts), has, loss.reshape(1).float()])
        with _connected():
            dist.all_reduce(flat)
        *sums, counts, total = flat.split([*(part.numel() for part in parts), len(weights), 1])
        for weight, summed, count in zip(weights, sums, counts.tolist(), strict=True):
            weight.grad = summed.view_as(weight).to(weight.dtype) if count else None
        return total.squeeze(0)  # type: ignore[no-any-return]

    def check_signals(self) -> None:
        """Stop where nothing would be lost, if this process was asked to; several stop if one of them was.

        Raises:
            Stopped: a signal was received.
        """
        if self.alone:
            signals.check()
            return
        received = torch.tensor(signals.received())
        with _connected():
            dist.all_reduce(received, dist.ReduceOp.MAX)
        if int(received):
            signals.forget()
            raise signals.Stopped(int(received))

    def gather(self, value: list[Any]) -> list[Any]:
        """The lists of all processes, one after the other."""
        if self.alone:
            return value
        found: list[Any] = [None] * self.count
        with _connected():
            dist.all_gather_object(found, value)
        return [item for part in found for item in part]

    def check_equal(self, tensors: Iterable[Tensor], step: int) -> None:
        """Refuse to go on if tensors, such as weights and masks, are not the same in all processes, bit for bit.

        Raises:
            UserError: naming the step and the processes that differ from the first.
        """
        if self.alone:
            return
        digest = 0
        for tensor in tensors:
            digest = zlib.crc32(bytes_of(tensor), digest)
        found = self.gather([digest])
        if other := [rank for rank, each in enumerate(found) if each != found[0]]:
            raise UserError(
                f"after step {step} processes {', '.join(map(str, other))} have other weights or masks than process 0",
                cure="run on machines of one kind, with one version of torch",
            )

    def hand_out(self, value: Any = None) -> Any:
        """What the first process gives, in all processes."""
        if self.alone:
            return value
        held: list[Any] = [value]
        with _connected():
            dist.broadcast_object_list(held, 0)
        return held[0]
