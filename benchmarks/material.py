"""Synthetic models and data for benchmarks: real shapes and lengths, random weights and words.

`lengths.json` is a histogram of the number of tokens per example in MRPC and SST-2 (GLUE), with BERT's
vocabulary, truncated to 128. Words are drawn with Zipf-Mandelbrot frequencies from as many as occur in
the real tasks, so that a batch touches about as many rows of the embedding table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOCABULARY = 30_522
WORDS = 11_570
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Shape:
    """The shape of a BERT."""

    hidden: int
    layers: int
    heads: int


# bert-mini, and all-MiniLM-L6.
SHAPES = {"bert-mini": Shape(256, 4, 4), "MiniLM": Shape(384, 6, 12)}
# Only for trying out a script.
TRIED = {"tiny": Shape(64, 2, 2)}
# Text columns of a task, and the number of special tokens per example.
TEXTS = {"mrpc": (("sentence1", "sentence2"), 3), "sst2": (("sentence",), 2)}


def write_model(folder: Path, shape: Shape) -> None:
    """Write a classifier with random weights, and a tokenizer with its vocabulary."""
    import torch
    import transformers
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    names = [*SPECIAL, *(f"w{i}" for i in range(VOCABULARY - len(SPECIAL)))]
    BertTokenizer(vocab={name: i for i, name in enumerate(names)}).save_pretrained(folder)


def write_task(folder: Path, task: str, most: int | None = None) -> None:
    """Write both splits of a task with `save_to_disk`, at most `most` examples of each."""
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()

    counts = json.loads(Path(__file__).with_name("lengths.json").read_text(encoding="utf-8"))[task]
    generator = np.random.default_rng(0)
    frequency = 1 / (np.arange(WORDS) + 2.7)
    columns, special = TEXTS[task]
    splits = {}
    for split, lengths in counts.items():
        sizes = np.repeat([int(n) for n in lengths], list(lengths.values()))
        generator.shuffle(sizes)
        sizes = sizes[:most]
        words = generator.choice(WORDS, int(sizes.sum()), p=frequency / frequency.sum())
        rows: dict[str, list[object]] = {column: [] for column in (*columns, "label")}
        start = 0
        for size in sizes:
            free = max(len(columns), size - special)
            for place, column in enumerate(columns):
                stop = start + (free + place) // len(columns)
                rows[column].append(" ".join(f"w{i}" for i in words[start:stop]))
                start = stop
            rows["label"].append(int(generator.integers(2)))
        splits[split] = Dataset.from_dict(rows)
    DatasetDict(splits).save_to_disk(str(folder))
