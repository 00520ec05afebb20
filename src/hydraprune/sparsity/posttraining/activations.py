"""What do layers see as inputs? Sums over the tokens of a calibration, block after block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.layouts import ConvLayout
from hydraprune.sparsity.patterns.heads import block_of
from hydraprune.sparsity.posttraining.base import Calibration, Orders

# Inputs of a layer, one row a token [tokens, features] -> what is summed over batches, over all tokens of one.
Moment = Callable[[Tensor], Tensor]

_real: ContextVar[Tensor | None] = ContextVar("real tokens", default=None)


@contextmanager
def only(real: Tensor) -> Iterator[None]:
    """Count only these tokens of the batch that the model reads inside this context; padding tells nothing.

    Args:
        real: bool [batch, length], as an attention mask.
    """
    token = _real.set(real.bool())
    try:
        yield
    finally:
        _real.reset(token)


def squares(rows: Tensor) -> Tensor:
    """Sum of the squares of each feature, [features]."""
    return rows.square().sum(0)


def products(rows: Tensor) -> Tensor:
    """X^T X, [features, features]."""
    return rows.t() @ rows


def _rows(inputs: Tensor) -> Tensor:
    """The inputs of a layer as rows, [tokens, features], padded places left out."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    real = _real.get()
    # Some layers see one row for an example, others tokens without their batches.
    if real is not None and (inputs.shape[:-1] == real.shape or (inputs.ndim == 2 and len(rows) == real.numel())):
        rows = rows[real.to(rows.device).flatten()]
    return rows if rows.dtype == torch.float64 else rows.float()


def wide(device: torch.device) -> torch.dtype:
    """The precision to sum and to solve in."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.no_grad()
def gather(modules: Mapping[str, nn.Module], calibration: Calibration, batches: int, moment: Moment) -> list[Tensor]:
    """A moment of the inputs of some layers over the calibration's first batches, in their order.

    Args:
        modules: by parameter name, for messages; linear layers of either kind.

    Raises:
        SparsityError: there was no batch, a layer was never called, or an input is not finite.
    """
    sums: dict[str, Tensor] = {}

    def watching(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows = _rows((args[0] if args else next(iter(kwargs.values()))).detach())
            found = moment(rows).to(wide(rows.device))
            sums[name] = sums[name].add_(found) if name in sums else found

        return hook

    handles: list[RemovableHandle] = []
    try:
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(watching(name), with_kwargs=True))
        seen = sum(1 for _ in calibration(batches))
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise SparsityError("the calibration gave no batch; it needs at least one")
    for name in modules:
        if name not in sums:
            raise SparsityError(f"{name}: the model does not use it on the calibration batches; exclude it")
        if not bool(sums[name].isfinite().all()):
            raise SparsityError(f"{name}: an input is not finite on the calibration batches; look for NaN weights")
    return [sums[name] for name in modules]


def block_after_block(orders: Orders, batches: int, moment: Moment) -> Iterator[tuple[int, list[Tensor]]]:
    """(index of a structure, the moment of each member's inputs), blocks of the model one after the other.

    A block's inputs are gathered when those before it have been pruned, so that it sees what they
    now give. It is the layers whose names agree up to their first number; any other layer is a
    block by itself. Every block takes a pass through the whole model for every batch.
    """
    indices = range(len(orders.structures))
    for _, block in groupby(indices, lambda index: _block(orders.structures[index])):
        group = list(block)
        members = [member for index in group for member in orders.structures[index].members]
        modules = {member.weight.name: orders.modules[member.weight.name] for member in members}
        found = dict(zip(modules, gather(modules, orders.calibration, batches, moment), strict=True))
        for index in group:
            yield index, [found[member.weight.name] for member in orders.structures[index].members]


def _block(structure: Structure) -> str:
    layer = structure.members[0].weight.name.removesuffix("weight").removesuffix(".")
    return block_of(layer) or layer


def refuse_convolutions(method: str, structures: Sequence[Structure]) -> None:
    """Refuse what is no linear layer.

    Raises:
        SparsityError: naming the layer.
    """
    for structure in structures:
        for member in structure.members:
            if isinstance(member.weight.layout, ConvLayout):
                raise SparsityError(
                    f"pruner={method}: {member.weight.name} is a convolution, and only inputs of linear layers are "
                    f"judged; leave convolutions out: layers.types=[Linear, Conv1D]"
                )
