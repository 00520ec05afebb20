"""Regrowth: kept units exchanged for pruned ones, layer by layer, at equal sparsity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.selection import cheapest


def exchange(pruned: Tensor, costs: Tensor, growth: Tensor, share: float) -> Tensor:
    """The choice of units after an exchange. Evci et al. 2020, arXiv:1911.11134, algorithm 1.

    The `share` of kept units that cost least is pruned, and as many of those pruned then (these
    included) with the largest growth come back. One that was pruned before does so only if it has any
    growth: without a gradient it would come back and stay zero. In its place one just pruned stays.

    Args:
        pruned, costs, growth: of one layer, flat [units]; costs and growth are finite.

    Returns:
        Flat bool [units], True = prune; as many as in `pruned`.
    """
    count = int(share * int((~pruned).sum()))
    dropped = cheapest(costs.masked_fill(pruned, torch.inf), count)
    out = pruned | dropped
    back = cheapest((-growth).masked_fill(~out | (pruned & (growth <= 0)), torch.inf), count)
    return out & ~back


def reset_state(optimizer: Optimizer, parameter: Tensor, where: Tensor) -> None:
    """Set an optimizer's state of some entries to zero: all its tensors of the parameter's shape.

    Args:
        where: bool, shaped like the parameter.
    """
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where, 0)
