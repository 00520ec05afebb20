"""Sharded weights (FSDP2's `fully_shard`): each process holds some rows of every weight, as a DTensor.

Everything that a pruner computes of a weight is computed of the rows that a process holds. What units compete for is
counted over all processes by sums of counters, so that no weight is gathered and all choose as one process would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.wrappers import is_instance_of


def held(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds, in the same memory; any other tensor itself."""
    found: Any = tensor
    return found.to_local() if is_sharded(tensor) else tensor


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is a DTensor."""
    return is_instance_of(tensor, "DTensor")


def reshard(model: nn.Module) -> None:
    """Let every module of `fully_shard` give up whole weights that a forward pass without a backward has left there."""
    for module in model.modules():
        if is_instance_of(module, "FSDPModule"):
            module.reshard()  # type: ignore[operator]


class Shards:
    """The processes that hold parts of some weights: sums and least values over them.

    Every process calls the same methods in the same order.

    Args:
        group: of `torch.distributed`; None: one process holds whole weights.
        device: of the weights.
    """

    def __init__(self, group: Any = None, device: torch.device | None = None) -> None:
        self._group, self._device = group, device

    @property
    def rank(self) -> int:
        """The number of this process among them."""
        return 0 if self._group is None else int(self._group.rank())

    def summed(self, counts: Tensor) -> Tensor:
        """The sums of whole numbers over processes."""
        return self._reduced(counts, "SUM")

    def total(self, count: int) -> int:
        """The sum of one number."""
        return count if self._group is None else int(self.summed(torch.tensor(count, device=self._device)))

    def least(self, tensors: Sequence[Tensor]) -> Tensor:
        """The least value of some tensors, none of them NaN, over all processes: a number without dimensions."""
        return self._reduced(torch.stack([tensor.min() for tensor in tensors]).min(), "MIN")

    def any(self, flag: Tensor) -> Tensor:
        """Whether a flag is set in any process, as a tensor without dimensions."""
        return flag if self._group is None else self._reduced(flag.int(), "MAX").bool()

    def all(self, flag: Tensor) -> Tensor:
        """Whether a flag is set in all processes, as a tensor without dimensions."""
        return flag if self._group is None else self._reduced(flag.int(), "MIN").bool()

    def gathered(self, counts: Tensor) -> Tensor:
        """The counts of every process, [processes, *shape of counts]."""
        if self._group is None:
            return counts.unsqueeze(0)
        from torch import distributed

        found = [torch.empty_like(counts) for _ in range(self._group.size())]
        distributed.all_gather(found, counts.contiguous(), group=self._group)
        return torch.stack(found)

    def _reduced(self, values: Tensor, kind: str) -> Tensor:
        if self._group is None:
            return values
        from torch import distributed

        result = values.clone()
        distributed.all_reduce(result, op=getattr(distributed.ReduceOp, kind), group=self._group)
        return result


WHOLE = Shards()


def shards_of(parameters: Sequence[tuple[str, Tensor]]) -> Shards:
    """The processes that hold the weights of one pruner.

    Args:
        parameters: (name, weight).

    Raises:
        SparsityError: some are sharded and others are not, or by other processes.
    """
    sharded = [(name, weight) for name, weight in parameters if is_sharded(weight)]
    if not sharded:
        return WHOLE
    names = {name for name, _ in sharded}
    for name, _ in parameters:
        if name not in names:
            raise SparsityError(
                f"{name} is whole in each process, and {sharded[0][0]} is sharded",
                cure="shard both, or give them to two pruners",
            )
    groups = [(name, _group(weight)) for name, weight in sharded]
    for name, group in groups[1:]:
        if group is not groups[0][1]:
            raise SparsityError(
                f"{name} is sharded over other processes than {groups[0][0]}", cure="give them to two pruners"
            )
    return Shards(groups[0][1], held(sharded[0][1]).device)


def _group(weight: Any) -> Any:
    (dimension,) = (i for i, placement in enumerate(weight.placements) if placement.is_shard())
    return weight.device_mesh.get_group(dimension)


def why_not_by_rows(weight: Any) -> str | None:
    """Why a DTensor is none of which each process holds consecutive rows, and all of them each once; None if it is."""
    kinds = [type(placement).__name__ for placement in weight.placements]
    if kinds.count("Shard") == 1 and set(kinds) <= {"Shard", "Replicate"}:
        (dimension,) = (placement.dim for placement in weight.placements if placement.is_shard())
        return None if dimension == 0 else f"is sharded along dimension {dimension}, as by tensor parallel"
    return f"is a DTensor of {', '.join(kinds)}"


def parts_of(weight: Any) -> tuple[int, int]:
    """(entries of the first dimension that each process holds but perhaps the last ones, number of processes)."""
    (index,) = (i for i, placement in enumerate(weight.placements) if placement.is_shard())
    processes = int(weight.device_mesh.size(index))
    return -(-int(weight.shape[0]) // processes), processes  # as `torch.chunk` has it
