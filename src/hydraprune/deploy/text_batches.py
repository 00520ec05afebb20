"""Batches of real texts for checks and calibration: those of a task, or a sample of English of all lengths."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor, nn

from hydraprune.data.batches import Batches
from hydraprune.data.encoding import Texts, encode_inputs
from hydraprune.data.labels import SCORE, Labels
from hydraprune.errors import UserError
from hydraprune.models.families import max_positions

Inputs = dict[str, Tensor]

_PASSAGE = """\
The ferry left the harbour at six in the morning, an hour late, because the captain had waited for a school class that
never came. Nobody on board complained: the sea was calm, coffee was free, and a musician from the north played songs
on the upper deck until the wind took his hat. By noon the islands came into view, low and green, with white houses
along the shore. An engineer explained to her daughter why ships of steel float, a couple argued about the price of
their tickets (42.50 each!), and two students slept through everything. Was it worth the delay? The reviews that were
written afterwards say so: most of the passengers would take the same trip again, although some of them found the food
poor and the seats too narrow.
"""
_WORDS = (1, 2, 3, 4, 6, 8, 11, 16, 22, 30, 40, 55, 75, 100, 128, 200)
# Texts of a task that int8 is calibrated on.
CALIBRATED = 300
# Rows that are taken of a task whose few texts have many.
_ROWS = 64
# Tokens of the longest text, where no task says it.
_LONGEST = 512


@dataclass(frozen=True)
class TaskTexts:
    """Texts of a task.

    Args:
        calibration: of its training set.
        check: of its main evaluation set.
        max_length: most tokens of a row.
        labels: what the task predicts, which says how its texts become rows.
    """

    calibration: Texts
    check: Texts
    max_length: int = _LONGEST
    labels: Labels = SCORE


def sample_texts() -> Texts:
    """English texts of 1 to 200 words."""
    passage = _PASSAGE.split() * 2
    return [(" ".join(passage[start : start + words]),) for start, words in enumerate(_WORDS)]


def spread(texts: Texts, most: int) -> Texts:
    """At most so many of some texts, evenly spread over them."""
    count = min(most, len(texts))
    return [texts[index * len(texts) // count] for index in range(count)]


def input_batches(
    texts: Texts,
    tokenizer: Any,
    model: nn.Module,
    batch_size: int,
    max_length: int = _LONGEST,
    labels: Labels = SCORE,
) -> list[Inputs]:
    """Model argument -> int64 [batch, length], for texts in random order; each batch is padded to its longest row.

    Args:
        max_length: most tokens of a row; at most the positions of the model.
        labels: see `TaskTexts`. Where a text has several rows, about as many of them are taken as there are texts,
            and no fewer than 64.

    Raises:
        UserError: the tokenizer has no padding token, or more tokens than the model.
    """
    config: Any = model.config
    if tokenizer.pad_token_id is None:
        raise UserError("its tokenizer has no padding token", key="MODEL", cure="give one that has")
    if len(tokenizer) > config.vocab_size:
        raise UserError(f"its tokenizer has {len(tokenizer)} tokens, its model only {config.vocab_size}", key="MODEL")
    encoded = encode_inputs(tokenizer, texts, min(max_length, max_positions(model)), labels)
    names = input_names(model)
    batches = islice(Batches(encoded, batch_size, shuffle_seed=0).epoch(), -(-max(len(texts), _ROWS) // batch_size))
    return [{name: batch.inputs[name] for name in names if name in batch.inputs} for batch in batches]


def input_names(model: nn.Module) -> list[str]:
    """The inputs of an exported model, as far as its tokenizer provides them."""
    known = inspect.signature(model.forward).parameters
    return [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in known]
