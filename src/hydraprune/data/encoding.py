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
from hydraprune.data.labels import Labels
from hydraprune.utils.cache import Cache, digest

# One text for each example, or several.
Texts = Sequence[tuple[str, ...]]
# What a stored file holds beside the inputs, and before the name of what `Rows` holds beside them.
_OFFSETS, _TRUNCATED, _BESIDE = "offsets", "truncated", "beside."
# Raise with every change in what is stored.
_FORMAT_VERSION = 4
# Examples tokenized at a time: a tokenizer needs some hundred bytes per token while it works.
_CHUNK = 256
# Examples from which the number of tokens is estimated; enough for the mean length within a few percent.
_SAMPLE = 300


def encode(tokenizer: Any, examples: Examples, max_length: int, labels: Labels) -> Encoded:
    """Token ids of `examples`, truncated to `max_length` tokens and not padded.

    Args:
        labels: what a model predicts for them.
    """
    return _encoded(_tokens(tokenizer, examples.texts, max_length, labels), tokenizer, examples, labels)


def encode_inputs(tokenizer: Any, texts: Texts, max_length: int, labels: Labels) -> Encoded:
    """The rows that a model reads of some texts, as `encode` makes them; without labels."""
    flat = _tokens(tokenizer, texts, max_length, labels)
    no_labels = torch.zeros(len(flat[_OFFSETS]) - 1)
    return Encoded(_inputs(flat), flat[_OFFSETS], no_labels, int(tokenizer.pad_token_id))


def _tokens(tokenizer: Any, texts: Texts, max_length: int, labels: Labels) -> dict[str, Tensor]:
    """The flat tensors of the inputs, and what is stored beside them."""
    chunks: dict[str, list[Tensor]] = {}
    lengths: list[int] = []
    truncated = 0
    # A text without any token becomes one padding token, since no model accepts an empty input.
    empty = {"input_ids": [int(tokenizer.pad_token_id)]}
    size = 1 if labels.is_running_text else _CHUNK
    for begin in range(0, len(texts), size):
        rows = labels.tokenize(tokenizer, texts[begin : begin + size], max_length)
        flat = {
            key: chain.from_iterable(row or empty.get(key, [0]) for row in each) for key, each in rows.inputs.items()
        }
        flat |= {f"{_BESIDE}{name}": chain(numbers) for name, numbers in rows.beside.items()}
        for key, numbers in flat.items():
            chunks.setdefault(key, []).append(torch.tensor(list(numbers), dtype=torch.int32))
        lengths += [max(1, len(row)) for row in rows.inputs["input_ids"]]
        truncated += rows.truncated
    joined = {key: torch.cat(tensors) for key, tensors in chunks.items()}
    return {**joined, _OFFSETS: torch.tensor([0, *accumulate(lengths)]), _TRUNCATED: torch.tensor(truncated)}


def _encoded(flat: Mapping[str, Tensor], tokenizer: Any, examples: Examples, labels: Labels) -> Encoded:
    beside = {key.removeprefix(_BESIDE): values for key, values in flat.items() if key.startswith(_BESIDE)}
    inputs = _inputs(flat)
    targets = labels.targets(examples.labels, {**inputs, **beside}, flat[_OFFSETS])
    rows = len(flat[_OFFSETS]) - 1
    assert labels.varies_rows or rows == len(examples) * labels.group, "an example has other rows than its labels say"
    truncated = int(flat[_TRUNCATED]) + labels.count_lost(examples.labels, targets, beside)
    return Encoded(inputs, flat[_OFFSETS], targets, int(tokenizer.pad_token_id), truncated, labels, beside, examples)


def _inputs(flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stored = (_OFFSETS, _TRUNCATED)
    return {key: values for key, values in flat.items() if key not in stored and not key.startswith(_BESIDE)}


def encode_once(tokenizer: Any, examples: Examples, max_length: int, labels: Labels, cache: Cache) -> Encoded:
    """`encode` through the cache.

    Raises:
        UserError: the cache's folder cannot be written.
    """
    return _encoded(_tokens_once(tokenizer, examples, max_length, labels, cache), tokenizer, examples, labels)


def _tokens_once(
    tokenizer: Any, examples: Examples, max_length: int, labels: Labels, cache: Cache
) -> dict[str, Tensor]:
    """`_tokens` through the cache."""
    identity = _identity(tokenizer)
    # An estimate: a token per four characters, and two 4-byte numbers per token.
    size = 2 * sum(len(part) for texts in examples.texts for part in texts)
    if identity is None or not cache.admits(size):
        return _tokens(tokenizer, examples.texts, max_length, labels)
    texts = (text.encode("utf-8", "surrogatepass") for pair in examples.texts for text in pair)
    key = digest(chain([identity, f"{max_length} {labels.form(examples.texts)}".encode()], texts))

    def write(path: Path) -> None:
        try:
            save_file(_tokens(tokenizer, examples.texts, max_length, labels), path)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    def read(path: Path) -> dict[str, Tensor]:
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from None

    return cache.fetch("tokens", f"{key}.safetensors", size, write, read)


def estimated_size(
    tokenizer: Any, examples: Examples, max_length: int, labels: Labels, cache: Cache
) -> tuple[int, int]:
    """(rows, tokens) of some examples; the tokens are estimated from a few hundred examples of one row each."""
    if labels.varies_rows:
        offsets = _tokens_once(tokenizer, examples, max_length, labels, cache)[_OFFSETS]
        return len(offsets) - 1, int(offsets[-1])
    sampled = slice(None, None, -(-len(examples) // _SAMPLE))
    sample = Examples(examples.texts[sampled], examples.labels[sampled])
    tokens = int(encode(tokenizer, sample, max_length, labels).offsets[-1])
    return len(examples) * labels.group, round(tokens / len(sample) * len(examples))


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
