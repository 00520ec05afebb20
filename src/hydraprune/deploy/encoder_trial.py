"""Trials of an encoder on made-up texts: whether a fast one computes what the original does, and how long one takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hydraprune.models.families import max_positions
from hydraprune.utils.turns import least_seconds

# Most relative difference of the outputs: rounding gives 1e-6 in single precision, and some 1e-3 in others.
_LIMITS = {"single": 1e-3, "narrow": 5e-2}
_CHECKED, _TIMED = 12, 128
Side = TypeVar("Side")


def other_outputs(base: nn.Module, fast: nn.Module, precision: str) -> str | None:
    """How far the outputs of a fast base model are from the original's, where that is more than rounding.

    It finds what no look at the modules can: a forward pass of one's own, hooks, adapters inside of a layer.

    Args:
        precision: of the products of the fast one.
    """
    ids = _texts(base, 2, _CHECKED)
    mask = torch.ones_like(ids)
    mask[1, max(1, ids.shape[1] * 2 // 3) :] = 0
    with _evaluating(base) as device:
        given = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        wanted = _hidden(base, given)[mask.bool()]
        found = _hidden(fast, {"input_ids": ids, "attention_mask": mask})[mask.bool()]
    is_single = precision == "fp32" and next(base.parameters()).dtype in (torch.float32, torch.float64)
    error = float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))  # NaN where either is not finite
    if error <= _LIMITS["single" if is_single else "narrow"]:
        return None
    return f"it computes more than a {type(base).__name__} does: the outputs differ by {error:.1e}"


def seconds_of(sides: Mapping[Side, nn.Module]) -> dict[Side, float]:
    """Seconds that each of some base models takes for a text of 128 tokens, or as many as there are positions.

    They take turns; the least of 7 calls counts.
    """
    ids = _texts(next(iter(sides.values())), 1, _TIMED)
    with torch.no_grad():
        return least_seconds({side: partial(base, input_ids=ids) for side, base in sides.items()})


def _texts(base: nn.Module, texts: int, tokens: int) -> Tensor:
    """Ids [texts, tokens]; fewer tokens where the model has fewer positions."""
    config: Any = base.config
    tokens = max(1, min(tokens, max_positions(base)))
    return (torch.arange(texts * tokens) % int(config.vocab_size)).view(texts, tokens)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[torch.device]:
    """The model in evaluation mode, and as it was afterwards; gives its device."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            device: torch.device = next(model.parameters()).device
            yield device
    finally:
        for module, mode in modes:
            module.training = mode


def _hidden(base: nn.Module, given: dict[str, Tensor]) -> Tensor:
    output = base(**given, return_dict=True)
    hidden: Tensor = output.last_hidden_state
    return hidden.float().cpu()
