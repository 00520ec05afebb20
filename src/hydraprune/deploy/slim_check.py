"""Whether a slimmed model gives the outputs of the original: both compute the same batch of texts, with padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.models.families import max_positions
from hydraprune.models.head_classes import model_outputs

# Tokens of the texts of the batch; cut to what the model takes.
LENGTHS = (3, 9, 17, 26, 41, 64, 97, 128)
# Of either difference. Rounding gives some 1e-6; a wrong head or channel 1e-2 and more.
LIMIT = 1e-4


@dataclass(frozen=True)
class Outputs:
    """Outputs for one batch.

    Args:
        hidden: last hidden state of the tokens that are no padding, [tokens, hidden].
        logits: [texts, labels].
    """

    hidden: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Difference:
    """How far two outputs are apart.

    Args:
        hidden: norm of the difference of the hidden states, relative to theirs.
        logits: largest absolute difference of a logit, relative to the largest logit where that is above 1.
    """

    hidden: float
    logits: float

    @property
    def is_rounding(self) -> bool:
        """Whether it is no more than rounding makes. False for NaN."""
        return self.hidden <= LIMIT and self.logits <= LIMIT


def sample_batch(model: nn.Module) -> dict[str, Tensor]:
    """Random tokens in texts of `LENGTHS`, padded to the longest: `input_ids` and `attention_mask`, [texts, tokens]."""
    config: Any = model.config
    lengths = torch.tensor(LENGTHS).clamp(max=max_positions(model))
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    ids = torch.randint(config.vocab_size, mask.shape, generator=torch.Generator().manual_seed(0))
    padding = config.pad_token_id or 0
    # Models that find padding by its id must not see it inside a text.
    ids[ids == padding] = (padding + 1) % config.vocab_size
    return {"input_ids": ids.masked_fill(~mask, padding), "attention_mask": mask.long()}


@torch.inference_mode()
def outputs_of(model: nn.Module, batch: dict[str, Tensor]) -> Outputs:
    """The outputs of a classifier in evaluation mode."""
    base: Any = model.base_model
    is_token = batch["attention_mask"].bool()
    model.eval()
    return Outputs(base(**batch).last_hidden_state[is_token], model_outputs(model, batch))


def difference(ours: Outputs, original: Outputs) -> Difference:
    """How far the outputs of a slimmed model are from the original's."""
    hidden = (ours.hidden - original.hidden).norm() / original.hidden.norm().clamp(min=torch.finfo().tiny)
    logits = (ours.logits - original.logits).abs().max() / original.logits.abs().max().clamp(min=1.0)
    return Difference(float(hidden), float(logits))
