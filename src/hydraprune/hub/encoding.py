"""Texts to token ids."""

from __future__ import annotations

from typing import Any

import torch

from hydraprune.errors import UserError
from hydraprune.hub.tasks import Examples, TaskData
from hydraprune.training.batches import Encoded


def encode(tokenizer: Any, examples: Examples, max_length: int, regression: bool) -> Encoded:
    """Token ids of `examples`, cut to `max_length` tokens and not padded."""
    columns = list(zip(*examples.texts, strict=True))
    # One text or two; a tokenizer takes the second as text_pair.
    tokens = tokenizer(*(list(column) for column in columns), truncation=True, max_length=max_length)
    inputs = {key: [torch.tensor(row) for row in rows] for key, rows in tokens.items() if key != "attention_mask"}
    kind = torch.float32 if regression else torch.int64
    return Encoded(inputs, torch.tensor(examples.labels, dtype=kind), int(tokenizer.pad_token_id))


def check_tokenizer(tokenizer: Any, data: TaskData, model_config: Any, max_length: int) -> None:
    """Refuse what the model cannot read.

    Raises:
        UserError: no padding token, or `max_length` above the model's positions.
    """
    if tokenizer.pad_token_id is None:
        raise UserError(f"model.path={tokenizer.name_or_path}: its tokenizer has no padding token; give one that has")
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise UserError(f"task.max_length={max_length}: the model has {positions} positions; give at most that")
    if len(data.train.texts[0]) > 2:
        raise UserError("task.text: give one column of text, or two")
