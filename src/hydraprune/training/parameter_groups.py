"""Optimizer parameter groups: which parameters get weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups of the trainable parameters: those with weight decay, then those without.

    Biases and normalisation weights are not decayed. Many families have a normalisation class of their own, so every
    parameter of one dimension counts as one.
    """
    undecayed = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name.endswith("bias") or parameter.dim() <= 1 or isinstance(module, _NORMS)
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in undecayed]},
        {"params": [p for p in parameters if id(p) in undecayed], "weight_decay": 0.0},
    ]
