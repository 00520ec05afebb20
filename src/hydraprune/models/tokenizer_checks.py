"""Checks that a tokenizer fits its model and the texts of a task."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples, TaskData
from hydraprune.errors import UserError
from hydraprune.models.families import max_positions

# Examples that are tokenized. If more than half of their tokens are unknown, the tokenizer is for another language,
# or incomplete.
_PROBE = 64


def check_tokenizer(key: str, path: str, tokenizer: Any, data: TaskData, model: nn.Module, max_length: int) -> None:
    """Refuse texts that the model cannot read.

    Args:
        key, path: where model and tokenizer come from: a config key and its value.
        model: its blueprint will do.
        max_length: most tokens of an example.

    Raises:
        UserError: no padding token; more token ids, token types or positions than the model has; or
            a tokenizer that does not know most words.
    """

    def error(reason: str, cure: str | None = None) -> UserError:
        return UserError(reason, key=key, value=path, cure=cure)

    config: Any = model.config
    if data.labels.needs_places and not tokenizer.is_fast:
        reason = "its tokenizer is written in Python, and does not tell where in a text a token is"
        raise error(reason, "give a checkpoint with a tokenizer.json")
    if tokenizer.pad_token_id is None:
        raise error("its tokenizer has no padding token", "give one that has")
    if len(tokenizer) > config.vocab_size:
        raise error(f"its tokenizer has {len(tokenizer)} tokens, its model only {config.vocab_size}")
    positions = max_positions(model)
    if max_length > positions:
        reason = f"{key}={path} has {positions} positions"
        raise UserError(reason, key="task.max_length", value=max_length, cure="give at most that")
    texts = [data.labels.excerpt(texts) for texts in data.train.texts[:_PROBE]]
    probe = encode(tokenizer, Examples(texts, data.train.labels[:_PROBE]), max_length, data.labels)
    types = probe.inputs.get("token_type_ids", torch.zeros(1))
    if int(types.max()) >= (getattr(config, "type_vocab_size", None) or 1 + int(types.max())):
        raise error("its model cannot tell the two texts of an example apart (type_vocab_size=1)")
    ids = probe.inputs["input_ids"]
    special = torch.isin(ids, torch.tensor([i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]))
    if tokenizer.unk_token_id is not None and float((ids[~special] == tokenizer.unk_token_id).float().mean()) > 0.5:
        raise error("its tokenizer does not know most words of the task", "check its vocabulary files")
