"""Which units come back? Living units exchanged for pruned ones, layer by layer, at equal sparsity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.sparsity.selection import cheapest


def exchange(pruned: Tensor, costs: Tensor, growth: Tensor, share: float) -> Tensor:
    """The choice of units after an exchange. Evci et al. 2020, arXiv:1911.11134, algorithm 1.

    The `share` of living units that cost least is dropped, and as many of those not living then
    (dropped ones included) that promise most grow. No more than promise anything: a unit without a
    gradient would come back to stay zero.

    Args:
        pruned, costs, growth: of one layer, flat [units]; costs and growth are finite.

    Returns:
        Flat bool [units], True = prune; as many as in `pruned`.
    """
    count = min(int(share * int((~pruned).sum())), int((growth[pruned] > 0).sum()))
    dropped = cheapest(costs.masked_fill(pruned, torch.inf), count)
    out = pruned | dropped
    back = cheapest((-growth).masked_fill(~out, torch.inf), count)
    return out & ~back


def forget(optimizer: Optimizer, parameter: Tensor, where: Tensor) -> None:
    """Reset to zero what an optimizer has gathered about some entries: all its tensors of the parameter's shape.

    Args:
        where: bool, shaped like the parameter.
    """
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where, 0)
