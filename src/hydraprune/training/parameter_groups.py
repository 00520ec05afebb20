"""Which parameters decay? Groups for an optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Every trainable parameter once: first those that decay, then biases and normalisation weights, which do not."""
    still = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, _NORMS)
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in still]},
        {"params": [p for p in parameters if id(p) in still], "weight_decay": 0.0},
    ]


def not_finite(model: nn.Module) -> str | None:
    """The name of the first parameter that holds a NaN or an infinity; None when none does."""
    return next((name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())), None)
