"""The base model of a transformer, computed by the kernels: the same inputs and outputs as the one in its place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hydraprune.errors import UserError
from hydraprune.kernels.encoders import Encoder

_UNSUPPORTED = "use the model as it was before accelerate"


class FusedEncoder(PreTrainedModel):  # type: ignore[misc]
    """An encoder in compiled code, with the pooler of the original.

    Hidden states are those of the original up to rounding, and 0 at tokens behind the last one that the attention mask
    keeps. It computes no gradients, and attention weights and the states of inner layers are not to be had.
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
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """As the forward pass of the original.

        Raises:
            UserError: an argument that the kernels do not know has a value.
            ValueError: ids out of range, shapes that differ, or a text that is too long.
        """
        self._refuse(position_ids=position_ids, inputs_embeds=inputs_embeds, **kwargs)
        if input_ids is None:
            raise UserError("must be given to an accelerated model", key="input_ids", value=None)
        hidden = self.encoder(input_ids, token_type_ids, attention_mask).to(self.dtype)
        pooled = None if self.pooler is None else self.pooler(hidden)
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return (hidden,) if pooled is None else (hidden, pooled)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Refused: packed weights are no checkpoint."""
        raise UserError("an accelerated model cannot be saved", cure="save the model that it was made from")

    def _refuse(self, **arguments: Any) -> None:
        for name, value in arguments.items():
            if name == "position_ids" and value is not None and self._usual(value):
                continue
            if value is not None and value is not False:
                shown = type(value).__name__ if isinstance(value, Tensor) else value
                raise UserError("is not known to an accelerated model", key=name, value=shown, cure=_UNSUPPORTED)

    def _usual(self, positions: Tensor) -> bool:
        """Whether positions are those that the model would give itself."""
        embedding = self.encoder.weights.embedding
        counted = torch.arange(positions.shape[-1]) + embedding.first_position
        return embedding.padding is None and bool((positions == counted).all())
