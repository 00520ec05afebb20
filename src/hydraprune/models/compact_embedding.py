"""Token embeddings of the words that occur, while a model is trained.

An embedding row that no example touches gets no gradient. AdamW and SGD shrink it by weight decay
at most, by one factor for all such rows; so only the rows that occur are trained, and a row of
ones beside them records the factor. This is what training all rows would give, up to rounding, and
spares most of the optimizer's work on small models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hydraprune.data.batches import Encoded
from hydraprune.models.families import is_known
from hydraprune.models.pretrained import model_type

# With more of the rows in use than this, it is not worth it.
_MOST = 0.8
# They do to a row without gradient nothing but multiply it.
_OPTIMIZERS = (torch.optim.AdamW, torch.optim.SGD)


class CompactEmbedding(nn.Module):
    """The rows `used` of `whole` as a parameter, with a last row of ones; token ids stay as they are.

    Args:
        used: [rows], token ids in rising order.
    """

    def __init__(self, whole: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        weight = whole.weight.detach()
        self.used, self.pad = used, whole.padding_idx
        untouched = torch.ones(len(weight), dtype=torch.bool)
        untouched[used] = False
        self.untouched = untouched.nonzero().squeeze(1)
        self.left = weight[self.untouched.to(weight.device)].cpu()
        self.weight = nn.Parameter(torch.cat([weight[used.to(weight.device)], torch.ones_like(weight[:1])]))
        # An id that was not announced has no row: an error, not another word's row.
        lookup = torch.full((len(weight),), len(used) + 1, device=weight.device)
        lookup[used.to(weight.device)] = torch.arange(len(used), device=weight.device)
        self.register_buffer("lookup", lookup, persistent=False)
        self.padding_idx = None if self.pad is None else int(lookup[self.pad])

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, width]."""
        return F.embedding(self.get_buffer("lookup")[ids], self.weight, self.padding_idx)

    def whole(self) -> nn.Embedding:
        """All rows, as if all had been trained."""
        weight = self.weight.detach()
        rows = weight.new_empty(len(self.used) + len(self.untouched), weight.shape[1])
        rows[self.used.to(weight.device)] = weight[:-1]
        rows[self.untouched.to(weight.device)] = self.left.to(weight.device) * weight[-1]
        return nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=self.pad, _weight=rows)


def compact(model: nn.Module, optimizer: Any, data: Sequence[Encoded]) -> bool:
    """Train only the embeddings of the tokens that occur in `data`.

    Args:
        optimizer: the class, or a partial of it, that will train the model.

    Returns:
        Whether that was possible and worth it.
    """
    whole = model.get_input_embeddings()  # type: ignore[operator]
    if type(whole) is not nn.Embedding or not is_known(model_type(model)) or whole.max_norm is not None:
        return False
    if getattr(optimizer, "func", optimizer) not in _OPTIMIZERS or not whole.weight.requires_grad:
        return False
    # Token types too: GPT-2 looks them up in the same table.
    ids = [values.long() for encoded in data for values in encoded.inputs.values()]
    padding = {encoded.pad_id for encoded in data} | {whole.padding_idx} - {None}
    used = torch.cat([*ids, torch.tensor(sorted(padding))]).unique()
    if len(used) > _MOST * whole.num_embeddings:
        return False
    model.set_input_embeddings(CompactEmbedding(whole, used))  # type: ignore[operator]
    return True


def expand(model: nn.Module) -> None:
    """Undo `compact`: the model as it is to be saved."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    if isinstance(embedding, CompactEmbedding):
        model.set_input_embeddings(embedding.whole())  # type: ignore[operator]
