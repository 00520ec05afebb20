"""Attention functions for training, registered with transformers under names of their own.

A saved model's config does not mention them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from hydraprune.kernels.dropout import fast_dropout
from hydraprune.models.families import family_of_model

_PLAIN = "hydraprune_plain"
_SDPA = "hydraprune_sdpa"


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d)) v in separate operations. query, key, value: [batch, heads, length, d].

    On a CPU PyTorch's fused attention does not support dropout, and its fallback is slower.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = fast_dropout(nn.functional.softmax(scores, dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def _unconditional_mask(*arguments: Any, **options: Any) -> Any:
    """The SDPA mask without the shortcut for unpadded batches, for which the host would wait for the GPU."""
    return sdpa_mask(*arguments, **{**options, "allow_is_bidirectional_skip": False, "allow_is_causal_skip": False})


AttentionInterface.register(_PLAIN, _plain_attention)
AttentionMaskInterface.register(_PLAIN, eager_mask)
AttentionInterface.register(_SDPA, sdpa_attention_forward)
AttentionMaskInterface.register(_SDPA, _unconditional_mask)


def choose_attention(model: nn.Module, device: torch.device) -> None:
    """Set the fastest attention for training `model` on `device`.

    Only for families with `standard_attention`; other models keep their own.
    """
    family = family_of_model(model)
    if not family.standard_attention:
        return
    dropout: Any = getattr(model.config, family.attention_dropout or "", 0.0)
    if device.type == "cuda":
        model.set_attn_implementation(_SDPA)  # type: ignore[operator]
    elif device.type == "cpu" and dropout:
        model.set_attn_implementation(_PLAIN)  # type: ignore[operator]
