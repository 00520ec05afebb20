"""Tokenization: texts to token ids, computed once per tokenizer and data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from hydraprune.data.examples import Examples
from hydraprune.data.labels import Labels, first_tokens
from hydraprune.utils.cache import Cache, digest

# What a stored file holds beside the inputs.
_OFFSETS, _TRUNCATED, _WORDS = "offsets", "truncated", "words"
# Raise with every change in what is stored.
_FORMAT_VERSION = 3
# Examples tokenized at a time: a tokenizer needs some hundred bytes per token while it works.
_CHUNK = 256
# Examples from which the number of tokens is estimated; enough for the mean length within a few percent.
_SAMPLE = 300


def encode(tokenizer: Any, examples: Examples, max_length: int, labels: Labels) -> Encoded:
    """Token ids of `examples`, truncated to `max_length` tokens and not padded.

    Args:
        labels: what a model predicts for them.
    """
    return _encoded(_tokens(tokenizer, examples, max_length, labels), tokenizer, examples, labels)


def _tokens(tokenizer: Any, examples: Examples, max_length: int, labels: Labels) -> dict[str, Tensor]:
    """The flat tensors of the inputs, and what is stored beside them."""
    chunks: dict[str, list[Tensor]] = {}
    lengths: list[int] = []
    truncated = 0
    for begin in range(0, len(examples), _CHUNK):
        texts = examples.texts[begin : begin + _CHUNK]
        tokens = labels.tokenize(tokenizer, texts, max_length)
        empty = {"input_ids": [int(tokenizer.pad_token_id)]}
        for key, rows in tokens.items():
            if key != "attention_mask":
                # A text without any token becomes one padding token, since no model accepts an empty input.
                numbers = chain.from_iterable(row or empty.get(key, [0]) for row in rows)
                chunks.setdefault(key, []).append(torch.tensor(list(numbers), dtype=torch.int32))
        if labels.per_token:
            words = chain.from_iterable(first_tokens(tokens, row) or [-1] for row in range(len(texts)))
            chunks.setdefault(_WORDS, []).append(torch.tensor(list(words), dtype=torch.int32))
        lengths += [max(1, len(row)) for row in tokens["input_ids"]]
        truncated += _count_truncated(tokenizer, tokens, texts, max_length)
    flat = {key: torch.cat(tensors) for key, tensors in chunks.items()}
    return {**flat, _OFFSETS: torch.tensor([0, *accumulate(lengths)]), _TRUNCATED: torch.tensor(truncated)}


def _count_truncated(tokenizer: Any, tokens: Any, texts: Sequence[Sequence[str]], max_length: int) -> int:
    """How many of the texts, whose `tokens` are truncated to `max_length`, had more."""
    if tokens.encodings is not None:
        return sum(bool(encoding.overflowing) for encoding in tokens.encodings)
    # A tokenizer written in Python does not say it: those that fill the length are tokenized again without a limit.
    full = [place for place, row in enumerate(tokens["input_ids"]) if len(row) >= max_length]
    if not full:
        return 0
    columns = zip(*(texts[place] for place in full), strict=True)
    again = tokenizer(*(list(column) for column in columns), truncation=False, verbose=False)
    return sum(len(row) > max_length for row in again["input_ids"])


def _encoded(flat: Mapping[str, Tensor], tokenizer: Any, examples: Examples, labels: Labels) -> Encoded:
    inputs = {key: values for key, values in flat.items() if key not in (_OFFSETS, _TRUNCATED, _WORDS)}
    targets = labels.targets(examples.labels, flat.get(_WORDS), flat[_OFFSETS])
    truncated = int(flat[_TRUNCATED])
    return Encoded(inputs, flat[_OFFSETS], targets, int(tokenizer.pad_token_id), truncated, labels)


def encode_once(tokenizer: Any, examples: Examples, max_length: int, labels: Labels, cache: Cache) -> Encoded:
    """`encode` through the cache.

    Raises:
        UserError: the cache's folder cannot be written.
    """
    identity = _identity(tokenizer)
    # An estimate: a token per four characters, and two 4-byte numbers per token.
    size = 2 * sum(len(part) for texts in examples.texts for part in texts)
    if identity is None or not cache.admits(size):
        return encode(tokenizer, examples, max_length, labels)
    texts = (text.encode("utf-8", "surrogatepass") for pair in examples.texts for text in pair)
    # Where a token belongs to a word, what the words of an example are decides; else one or two texts.
    form = " ".join(str(len(words)) for words in examples.texts) if labels.per_token else len(examples.texts[0])
    key = digest(chain([identity, f"{max_length} {form}{' words' * labels.per_token}".encode()], texts))

    def write(path: Path) -> None:
        try:
            save_file(_tokens(tokenizer, examples, max_length, labels), path)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    def read(path: Path) -> dict[str, Tensor]:
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from None

    flat = cache.fetch("tokens", f"{key}.safetensors", size, write, read)
    return _encoded(flat, tokenizer, examples, labels)


def estimated_tokens(tokenizer: Any, examples: Examples, max_length: int, labels: Labels) -> int:
    """The number of tokens of all examples, estimated from a few hundred of them."""
    sampled = slice(None, None, -(-len(examples) // _SAMPLE))
    sample = Examples(examples.texts[sampled], examples.labels[sampled])
    return round(int(encode(tokenizer, sample, max_length, labels).offsets[-1]) / len(sample) * len(examples))


def _identity(tokenizer: Any) -> bytes | None:
    """Everything that a tokenizer's output depends on; None for one written in Python, which cannot be inspected."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # The backend keeps the options of the last call; `encode` sets them anyway.
    backend.no_truncation()
    backend.no_padding()
    versions = (tokenizers.__version__, transformers.__version__, _FORMAT_VERSION)
    sides = (tokenizer.truncation_side, tokenizer.model_input_names, type(tokenizer).__name__)
    return f"{backend.to_str()} {sides} {versions}".encode()
