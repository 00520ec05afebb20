"""A base model in bfloat16 by PyTorch, for processors with AMX, which multiply dense weights fast."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from hydraprune.sparsity import native_code


class DenseBfloat16(PreTrainedModel):  # type: ignore[misc]
    """A copy of a base model that computes in bfloat16, and gives outputs of the original's type."""

    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, base: Any) -> None:
        super().__init__(copy.deepcopy(base.config))
        self.given = base.dtype
        self.base = copy.deepcopy(base).cpu().to(torch.bfloat16)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the forward pass of the original."""
        output = self.base(*arguments, **named)
        if isinstance(output, ModelOutput):
            for name, value in output.items():
                output[name] = self._as_given(value)
            return output
        return tuple(self._as_given(value) for value in output)

    def _as_given(self, value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(self.given) if is_float else value


def multiplies_tiles() -> bool:
    """Whether this processor has AMX for bfloat16."""
    return "amx_bf16" in native_code.processor()
