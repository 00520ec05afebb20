"""Inputs of layers on calibration batches: sums over their tokens, gathered block by block."""

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
from hydraprune.sparsity.layouts import model_block_of
from hydraprune.sparsity.posttraining.base import Calibration, PostTraining, PruningTask
from hydraprune.sparsity.precision import wide

# Inputs of a layer in one batch, a row per token [tokens, features] -> their sum over tokens, added up over batches.
Moment = Callable[[Tensor], Tensor]

_tokens: ContextVar[Tensor | None] = ContextVar("tokens that are not padding", default=None)


@contextmanager
def ignore_padding(attention_mask: Tensor) -> Iterator[None]:
    """Leave padding out of what is gathered of the batch that the model reads inside this context.

    Args:
        attention_mask: [batch, length], true or 1 for tokens, false or 0 for padding.
    """
    previous = _tokens.set(attention_mask.bool())
    try:
        yield
    finally:
        _tokens.reset(previous)


def squares(rows: Tensor) -> Tensor:
    """Sum of the squares of each feature, [features]."""
    return rows.square().sum(0)


def products(rows: Tensor) -> Tensor:
    """X^T X, [features, features]."""
    return rows.t() @ rows


def _rows(inputs: Tensor) -> Tensor:
    """The inputs of a layer as rows, [tokens, features], without padding."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    tokens = _tokens.get()
    # Some layers see one row per example, others tokens without a batch axis.
    if tokens is not None and (inputs.shape[:-1] == tokens.shape or (inputs.ndim == 2 and len(rows) == tokens.numel())):
        rows = rows[tokens.to(rows.device).flatten()]
    return rows if rows.dtype == torch.float64 else rows.float()


@torch.no_grad()
def gather(modules: Mapping[str, nn.Module], calibration: Calibration, batches: int, moment: Moment) -> list[Tensor]:
    """A moment of the inputs of each layer over the calibration's first batches, in the order of the layers.

    Args:
        modules: by parameter name, for messages; linear layers of either kind.

    Raises:
        SparsityError: there was no batch, a layer was not called, or an input is not finite.
    """
    sums: dict[str, Tensor] = {}

    def observing(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows = _rows((args[0] if args else next(iter(kwargs.values()))).detach())
            found = moment(rows).to(wide(rows.device))
            sums[name] = sums[name].add_(found) if name in sums else found

        return hook

    handles: list[RemovableHandle] = []
    try:
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(observing(name), with_kwargs=True))
        seen = sum(1 for _ in calibration(batches))
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise SparsityError("the calibration gave no batch", cure="it needs at least one")
    for name in modules:
        if name not in sums:
            raise SparsityError(f"{name}: the model does not use it on the calibration batches", cure="exclude it")
        if not bool(sums[name].isfinite().all()):
            raise SparsityError(
                f"{name}: an input is not finite on the calibration batches", cure="look for NaN weights"
            )
    return [sums[name] for name in modules]


def model_blocks_of(structures: Sequence[Structure]) -> list[list[int]]:
    """Indices of the structures of each block of the model, in order.

    A block is the layers whose names agree up to their first number; any other layer is a block by itself.
    """
    return [list(block) for _, block in groupby(range(len(structures)), lambda index: _block(structures[index]))]


def _block(structure: Structure) -> str:
    layer = structure.members[0].weight.layer
    return model_block_of(layer) or layer


def gather_block(task: PruningTask, indices: Sequence[int], batches: int, moment: Moment) -> dict[int, list[Tensor]]:
    """Structure -> the moment of each member's inputs, by one pass through the whole model for every batch.

    Raises:
        SparsityError: see `gather`.
    """
    members = [member for index in indices for member in task.structures[index].members]
    modules = {member.weight.name: task.modules[member.weight.name] for member in members}
    moments = dict(zip(modules, gather(modules, task.calibration, batches, moment), strict=True))
    return {index: [moments[member.weight.name] for member in task.structures[index].members] for index in indices}


def refuse_convolutions(method: PostTraining, structures: Sequence[Structure]) -> None:
    """Refuse layers that are not linear.

    Raises:
        SparsityError: with the layer.
    """
    for structure in structures:
        for member in structure.members:
            if member.weight.packed:
                raise method.refusal(
                    f"{member.weight.name} is a packed weight, whose inputs are not those of its module",
                    cure="leave packed weights out, or prune by a criterion",
                    setting=("layers.packed", "{}"),
                )
            if not member.weight.layout.linear:
                raise method.refusal(
                    f"{member.weight.name} is a convolution, and only inputs of linear layers are judged",
                    cure="leave convolutions out",
                    setting=("layers.types", "[Linear, Conv1D]"),
                )
