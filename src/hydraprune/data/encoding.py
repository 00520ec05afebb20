"""Texts to token ids."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hydraprune.data.batches import Encoded
from hydraprune.data.examples import Examples, TaskData
from hydraprune.errors import UserError
from hydraprune.utils.cache import Cache, digest


def encode(tokenizer: Any, examples: Examples, max_length: int, regression: bool) -> Encoded:
    """Token ids of `examples`, cut to `max_length` tokens and not padded."""
    pieces: dict[str, list[Tensor]] = {}
    lengths: list[int] = []
    # A tokenizer takes some hundred bytes for a token while it works.
    for begin in range(0, len(examples), _PIECE):
        columns = list(zip(*examples.texts[begin : begin + _PIECE], strict=True))
        # One text or two; a tokenizer takes the second as text_pair.
        tokens = tokenizer(*(list(column) for column in columns), truncation=True, max_length=max_length)
        empty = {"input_ids": [int(tokenizer.pad_token_id)]}
        for key, rows in tokens.items():
            if key != "attention_mask":
                # A text of which the tokenizer keeps nothing is one padding token: no model can read none.
                numbers = chain.from_iterable(row or empty.get(key, [0]) for row in rows)
                pieces.setdefault(key, []).append(torch.tensor(list(numbers), dtype=torch.int32))
        lengths += [max(1, len(row)) for row in tokens["input_ids"]]
    flat = {key: torch.cat(parts) for key, parts in pieces.items()}
    return _encoded(flat, torch.tensor([0, *accumulate(lengths)]), tokenizer, examples, regression)


def _encoded(
    flat: Mapping[str, Tensor], offsets: Tensor, tokenizer: Any, examples: Examples, regression: bool
) -> Encoded:
    kind = torch.float32 if regression else torch.int64
    return Encoded(flat, offsets, torch.tensor(examples.labels, dtype=kind), int(tokenizer.pad_token_id))


def encode_once(tokenizer: Any, examples: Examples, max_length: int, regression: bool, cache: Cache) -> Encoded:
    """`encode`, or the tokens that it made of these texts before.

    Raises:
        UserError: the cache's folder cannot be written.
    """
    identity = _identity(tokenizer)
    # A guess: a token for four characters, and two numbers of four bytes for a token.
    size = 2 * sum(len(part) for texts in examples.texts for part in texts)
    if identity is None or not cache.admits(size):
        return encode(tokenizer, examples, max_length, regression)
    parts = (part.encode("utf-8", "surrogatepass") for texts in examples.texts for part in texts)
    key = digest(chain([identity, f"{max_length} {len(examples.texts[0])}".encode()], parts))

    def write(place: Path) -> None:
        encoded = encode(tokenizer, examples, max_length, regression)
        try:
            save_file({**encoded.inputs, _OFFSETS: encoded.offsets}, place)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    def read(place: Path) -> dict[str, Tensor]:
        try:
            return load_file(place)
        except SafetensorError as error:
            raise ValueError(str(error)) from None

    flat = cache.fetch("tokens", f"{key}.safetensors", size, write, read)
    return _encoded(flat, flat.pop(_OFFSETS), tokenizer, examples, regression)


_OFFSETS = "offsets"
# To be raised with every change of ours that changes what is kept.
_FORM = 2
# Examples that are tokenized at a time.
_PIECE = 256


def estimated_tokens(tokenizer: Any, examples: Examples, max_length: int) -> int:
    """About how many tokens all examples have, from at most some hundreds of them."""
    some = slice(None, None, -(-len(examples) // _SAMPLE))
    sample = Examples(examples.texts[some], examples.labels[some])
    return round(int(encode(tokenizer, sample, max_length, True).offsets[-1]) / len(sample) * len(examples))


# Enough to know the mean length within a few percent.
_SAMPLE = 300


def _identity(tokenizer: Any) -> bytes | None:
    """All that a tokenizer's output depends on; None for one written in Python, which does not tell."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # What the last call asked for is kept in there, and will be asked for again.
    backend.no_truncation()
    backend.no_padding()
    versions = (tokenizers.__version__, transformers.__version__, _FORM)
    sides = (tokenizer.truncation_side, tokenizer.model_input_names, type(tokenizer).__name__)
    return f"{backend.to_str()} {sides} {versions}".encode()


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
    types = probe.inputs.get("token_type_ids", torch.zeros(1))
    if int(types.max()) >= getattr(model_config, "type_vocab_size", 2) > 0:
        raise UserError(f"{key}: its model cannot tell the two texts of an example apart (type_vocab_size=1)")
    ids = probe.inputs["input_ids"]
    special = torch.isin(ids, torch.tensor([i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]))
    if tokenizer.unk_token_id is not None and float((ids[~special] == tokenizer.unk_token_id).float().mean()) > 0.5:
        raise UserError(f"{key}: its tokenizer does not know most words of the task; are its vocabulary files there?")


def positions_of(config: Any) -> int:
    """The longest input, in tokens. RoBERTa's family counts positions from behind the padding index."""
    positions = int(getattr(config, "max_position_embeddings", 1_000_000))
    return positions - config.pad_token_id - 1 if config.model_type in _OFFSET else positions


_OFFSET = ("roberta", "xlm-roberta", "camembert")
