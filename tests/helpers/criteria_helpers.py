"""Shared by tests of criteria: a small regression, scores of single steps, a pruner of some layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sparsity_helpers import pruner_of
from torch import Tensor, nn
from torch.nn import functional

from hydraprune.sparsity import Block, Criterion, NofM, Pattern, Plans, Pruner, Schedule

BLOCKS = [Block(1, 1), Block(4, 1), Block(1, 4), Block(2, 2), Block(1, "channel"), Block("channel", 1), Block(2, 3)]


def name(value: object) -> str:
    """An id for a test."""
    return value.name if isinstance(value, Block | NofM) else type(value).__name__


def problem(seed: int = 0, rows: int = 8, columns: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    weight, inputs = torch.randn(rows, columns, generator=generator), torch.randn(5, columns, generator=generator)
    return weight, inputs, torch.randn(5, rows, generator=generator)


def gradient_of(weight: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Of the mean squared error of a linear layer."""
    leaf = weight.clone().requires_grad_()
    (found,) = torch.autograd.grad((functional.linear(inputs, leaf) - targets).square().mean(), leaf)
    return found


def ran(criterion: Criterion, steps: Sequence[tuple[Tensor, Tensor]], pattern: Pattern) -> list[Tensor]:
    """The scores after some (weight, gradient) matrices, and the state they came from."""
    state = None
    for weight, gradient in steps:
        state = criterion.update_state(state, [weight.unsqueeze(1)], [gradient.unsqueeze(1)], pattern)
    assert state is not None
    return [criterion.scores(state, [steps[-1][0].unsqueeze(1)], pattern)[0], state[0]]


def expanded(cells: Tensor, rows: int, columns: int, block: Block) -> Tensor:
    """One value per block as a matrix with it at every weight, by Kronecker's product."""
    height = rows if block.rows == "channel" else block.rows
    width = columns if block.cols == "channel" else block.cols
    return torch.kron(cells.reshape(rows // height, columns // width), torch.ones(height, width))


def pruner_on_layers(
    layers: Sequence[nn.Module], plans: Plans, criterion: Criterion, schedule: Schedule, steps: int = 12
) -> Pruner:
    """The pruner of some layers, whose names are their numbers."""
    return pruner_of(nn.ModuleList(layers), plans, criterion, schedule, steps)
