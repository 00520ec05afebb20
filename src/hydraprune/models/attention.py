"""How transformers computes attention in our trainings.

Registered with transformers as attention functions of their own; a saved model knows nothing of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from hydraprune.models.dropout import fast_dropout
from hydraprune.models.families import is_known
from hydraprune.models.pretrained import model_type

_PLAIN = "hydraprune_plain"
_SDPA = "hydraprune_sdpa"


def _plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d)) v, written out. query, key, value: [batch, heads, length, d].

    On a CPU torch's own fused attention does not serve drop-out, and what it falls back to is slower.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = fast_dropout(nn.functional.softmax(scores, dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def _mask_without_a_look(*arguments: Any, **options: Any) -> Any:
    """A mask made without asking whether anything is padded, for which the host would wait for the GPU."""
    return sdpa_mask(*arguments, **{**options, "allow_is_bidirectional_skip": False, "allow_is_causal_skip": False})


AttentionInterface.register(_PLAIN, _plain)
AttentionMaskInterface.register(_PLAIN, eager_mask)
AttentionInterface.register(_SDPA, sdpa_attention_forward)
AttentionMaskInterface.register(_SDPA, _mask_without_a_look)


def choose_attention(model: nn.Module, device: torch.device) -> None:
    """The quickest attention for training a model of a known family on `device`; others keep their own."""
    drops = any(getattr(model.config, key, 0.0) for key in ("attention_probs_dropout_prob", "attention_dropout"))
    if not is_known(model_type(model)):
        return
    if device.type == "cuda":
        model.set_attn_implementation(_SDPA)  # type: ignore[operator]
    elif device.type == "cpu" and drops:
        model.set_attn_implementation(_PLAIN)  # type: ignore[operator]
