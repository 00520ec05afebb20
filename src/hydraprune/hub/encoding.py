"""Texts to token ids."""

from __future__ import annotations

from typing import Any

import torch

from hydraprune.errors import UserError
from hydraprune.hub.examples import Examples, TaskData
from hydraprune.training.batches import Encoded


def encode(tokenizer: Any, examples: Examples, max_length: int, regression: bool) -> Encoded:
    """Token ids of `examples`, cut to `max_length` tokens and not padded."""
    columns = list(zip(*examples.texts, strict=True))
    # One text or two; a tokenizer takes the second as text_pair.
    tokens = tokenizer(*(list(column) for column in columns), truncation=True, max_length=max_length)
    inputs = {key: [torch.tensor(row) for row in rows] for key, rows in tokens.items() if key != "attention_mask"}
    kind = torch.float32 if regression else torch.int64
    return Encoded(inputs, torch.tensor(examples.labels, dtype=kind), int(tokenizer.pad_token_id))


# Of these examples' tokens, more than half unknown: the tokenizer is not one for this language, or not whole.
_PROBE = 64


def check_tokenizer(key: str, tokenizer: Any, data: TaskData, model_config: Any, max_length: int) -> None:
    """Refuse texts that the model cannot read.

    Args:
        key: where model and tokenizer come from, as in `model.path=...`.

    Raises:
        UserError: no padding token; more token ids, token types or positions than the model has; or
            a tokenizer that does not know the words.
    """
    if tokenizer.pad_token_id is None:
        raise UserError(f"{key}: its tokenizer has no padding token; give one that has")
    if len(tokenizer) > model_config.vocab_size:
        raise UserError(f"{key}: its tokenizer has {len(tokenizer)} tokens, its model only {model_config.vocab_size}")
    positions = positions_of(model_config)
    if max_length > positions:
        raise UserError(f"task.max_length={max_length}: {key} has {positions} positions; give at most that")
    probe = encode(tokenizer, Examples(data.train.texts[:_PROBE], data.train.labels[:_PROBE]), max_length, True)
    types = torch.cat(list(probe.inputs.get("token_type_ids", [torch.zeros(1)])))
    if int(types.max()) >= getattr(model_config, "type_vocab_size", 2) > 0:
        raise UserError(f"{key}: its model cannot tell the two texts of an example apart (type_vocab_size=1)")
    ids = torch.cat(list(probe.inputs["input_ids"]))
    special = torch.isin(ids, torch.tensor([i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]))
    if tokenizer.unk_token_id is not None and float((ids[~special] == tokenizer.unk_token_id).float().mean()) > 0.5:
        raise UserError(f"{key}: its tokenizer does not know most words of the task; are its vocabulary files there?")


def positions_of(config: Any) -> int:
    """The longest input, in tokens. RoBERTa's family counts positions from behind the padding index."""
    positions = int(getattr(config, "max_position_embeddings", 1_000_000))
    return positions - config.pad_token_id - 1 if config.model_type in _OFFSET else positions


_OFFSET = ("roberta", "xlm-roberta", "camembert")
