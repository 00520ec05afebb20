"""The graph of a torch model with axes of any size, from which converters start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.deploy.engines import converting
from hydraprune.models.families import max_positions
from hydraprune.models.head_classes import model_outputs

OUTPUT = "logits"
# Sizes of the example: a size of 1 would be taken for one that never changes.
_BATCH, _LENGTH = 2, 8


class _Logits(nn.Module):
    """A model with tensors in and one tensor out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return model_outputs(self.model, {"input_ids": input_ids, "attention_mask": attention_mask, **types})


def axes(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Names of the axes of each input, all of which may have any size."""
    return {name: {0: "batch", 1: "length"} for name in names}


def trace(model: nn.Module, names: Sequence[str], attention: str) -> torch.export.ExportedProgram:
    """The graph of a classifier, from int64 inputs [batch, length] to logits [batch, labels].

    Args:
        model: on the CPU and in evaluation mode.
        names: of its inputs.
        attention: `eager`, written out in products, or `sdpa`, as one operation.

    Raises:
        UserError: torch cannot trace it.
    """
    positions = max_positions(model)
    length = min(_LENGTH, positions)
    example = {name: torch.ones(_BATCH, length, dtype=torch.int64) for name in names}
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=positions)}
    changeable: Any = model
    before = model.config._attn_implementation  # type: ignore[union-attr]
    with converting("MODEL"), torch.no_grad():
        changeable.set_attn_implementation(attention)
        try:
            return torch.export.export(_Logits(model), (), example, dynamic_shapes=dict.fromkeys(names, sizes))
        finally:
            changeable.set_attn_implementation(before)
