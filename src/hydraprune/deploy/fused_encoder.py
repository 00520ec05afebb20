"""The base model of a transformer, computed by the kernels: the same inputs and outputs as the one in its place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as Output

from hydraprune.deploy import first_token
from hydraprune.errors import UserError
from hydraprune.kernels.encoders import Encoder

_UNSUPPORTED = "use the model as it was before accelerate"


class FusedEncoder(PreTrainedModel):  # type: ignore[misc]
    """An encoder in compiled code, with the pooler of the original.

    Hidden states are those of the original up to rounding, and 0 at tokens behind the last one that the attention mask
    keeps. For a classifier that is being called, they are those of first tokens alone, [texts, 1, hidden]. It computes
    no gradients, and gives neither attention weights nor the states of inner layers.
    """

    # Whatever attention the config names, the kernels compute their own.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: Any, encoder: Encoder, pooler: nn.Module | None, dtype: torch.dtype) -> None:
        super().__init__(copy.deepcopy(config))
        self.encoder = encoder
        self.pooler = pooler
        # Tells device and type, which pipelines ask a model's parameters for.
        self.register_buffer("output_like", torch.zeros((), dtype=dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the outputs; everything inside is computed in single precision."""
        dtype: torch.dtype = self.output_like.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Output | tuple[Tensor, ...]:
        """As the forward pass of the original.

        Raises:
            UserError: an argument that the kernels do not know has a value.
            ValueError: ids out of range, shapes that differ, or a text that is too long.
        """
        is_first = first_token.is_enough(self)
        refuse_tracing()
        tokens = None if input_ids is None else input_ids.shape[-1]
        self._refuse(tokens, position_ids=position_ids, inputs_embeds=inputs_embeds, **kwargs)
        if input_ids is None:
            raise UserError("must be given to an accelerated model", key="input_ids", value=None)
        if self.encoder.weights.embedding.token_type is None:
            token_type_ids = None  # as the original does
        if is_first:
            hidden = self.encoder.first(input_ids, token_type_ids, attention_mask)[:, None]
        else:
            hidden = self.encoder(input_ids, token_type_ids, attention_mask)
        hidden = hidden.to(self.dtype)
        pooled = None if self.pooler is None else self.pooler(hidden)
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return (hidden,) if pooled is None else (hidden, pooled)
        if is_first:
            return first_token.FirstTokenOutput(hidden, pooled)
        return Output(last_hidden_state=hidden, pooler_output=pooled)

    def _refuse(self, tokens: int | None, **arguments: Any) -> None:
        for name, value in arguments.items():
            if name == "position_ids" and value is not None and tokens is not None and self._usual(value, tokens):
                continue
            if value is not None and value is not False:
                shown = type(value).__name__ if isinstance(value, Tensor) else value
                raise UserError("is not known to an accelerated model", key=name, value=shown, cure=_UNSUPPORTED)

    def _usual(self, positions: Tensor, tokens: int) -> bool:
        """Whether positions are those that the model would give itself."""
        embedding = self.encoder.weights.embedding
        if embedding.padding is not None or positions.shape[-1] != tokens:
            return False
        return bool((positions.cpu() == torch.arange(tokens) + embedding.first_position).all())


def refuse_tracing() -> None:
    """Refuse `torch.jit.trace`, which would keep what the kernels computed as a constant.

    Raises:
        UserError: this is a trace.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise UserError("an accelerated model cannot be traced", cure="trace the model that it was made from")


def refuse_saving(*_: Any, **__: Any) -> None:
    """In the place of `save_pretrained`: packed weights are no checkpoint.

    Raises:
        UserError: always.
    """
    raise UserError("an accelerated model cannot be saved", cure="save the model that it was made from")
