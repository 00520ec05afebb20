"""Compact embedding: while a model is trained, its token embedding holds only the rows that occur in the data.

A row without gradient is at most shrunk by the weight decay of AdamW or SGD, by the same factor as
every other such row. So only the rows in use are trained, and a row of ones beside them records the
factor. Up to rounding this equals training all rows, and saves most of the optimizer's work on small
models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hydraprune.data.batches import Encoded
from hydraprune.models.families import family_of_model

# With a larger share of the rows in use, it does not pay.
_MOST_USED = 0.8
# Optimizers that only scale a row without gradient.
_OPTIMIZERS = (torch.optim.AdamW, torch.optim.SGD)


class CompactEmbedding(nn.Module):
    """The rows `used` of an embedding as a parameter, followed by a row of ones; takes the original token ids.

    Args:
        full: the embedding that it replaces.
        used: [rows], token ids in ascending order.
    """

    def __init__(self, full: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        weight = full.weight.detach()
        self.used, self.full_padding_idx = used, full.padding_idx
        is_unused = torch.ones(len(weight), dtype=torch.bool)
        is_unused[used] = False
        self.unused = is_unused.nonzero().squeeze(1)
        self.unused_rows = weight[self.unused.to(weight.device)].cpu()
        self.weight = nn.Parameter(torch.cat([weight[used.to(weight.device)], torch.ones_like(weight[:1])]))
        # An unexpected id maps past the last row: an error rather than another token's embedding.
        lookup = torch.full((len(weight),), len(used) + 1, device=weight.device)
        lookup[used.to(weight.device)] = torch.arange(len(used), device=weight.device)
        self.register_buffer("lookup", lookup, persistent=False)
        self.padding_idx = None if full.padding_idx is None else int(lookup[full.padding_idx])

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, width]."""
        return F.embedding(self.get_buffer("lookup")[ids], self.weight, self.padding_idx)

    def full(self) -> nn.Embedding:
        """The embedding with all rows, as if all had been trained."""
        weight = self.weight.detach()
        rows = weight.new_empty(len(self.used) + len(self.unused), weight.shape[1])
        rows[self.used.to(weight.device)] = weight[:-1]
        rows[self.unused.to(weight.device)] = self.unused_rows.to(weight.device) * weight[-1]
        return nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=self.full_padding_idx, _weight=rows)


def compact(model: nn.Module, optimizer: Any, data: Sequence[Encoded]) -> bool:
    """Replace a model's token embedding by the rows of the tokens that occur in `data`.

    Args:
        optimizer: the optimizer class, or a partial of it, that will train the model.

    Returns:
        Whether it was possible and pays.
    """
    family = family_of_model(model)
    full = model.get_input_embeddings()  # type: ignore[operator]
    if not family.lookup_embedding or type(full) is not nn.Embedding or full.max_norm is not None:
        return False
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is full.weight]
    if len(names) > 1:  # the head of a language model, which reads all rows
        return False
    if getattr(optimizer, "func", optimizer) not in _OPTIMIZERS or not full.weight.requires_grad:
        return False
    # Token types too: GPT-2 looks them up in the same embedding.
    ids = [values.long() for encoded in data for values in encoded.inputs.values()]
    padding = {encoded.pad_id for encoded in data} | {full.padding_idx} - {None}
    used = torch.cat([*ids, torch.tensor(sorted(padding))]).unique()
    if len(used) > _MOST_USED * full.num_embeddings:
        return False
    model.set_input_embeddings(CompactEmbedding(full, used))  # type: ignore[operator]
    return True


def expand(model: nn.Module) -> None:
    """Undo `compact`, before the model is saved."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    if isinstance(embedding, CompactEmbedding):
        model.set_input_embeddings(embedding.full())  # type: ignore[operator]
