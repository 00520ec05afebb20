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

_LENGTHS = Path(__file__).with_name("lengths.json")
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
# Final sparsity of the published recipes.
TARGET = 0.9


@dataclass(frozen=True)
class PublishedRecipe:
    """The published recipe of bert-mini on a task: rates, and durations in epochs and steps."""

    lr: float
    weight_decay: float
    distill_weight: float
    warmup: int
    frequency: int
    cooldown: int = 5
    epochs: int = 15


RECIPES = {
    "mrpc": PublishedRecipe(1e-3, 1e-3, 5.0, warmup=1, frequency=50),
    "sst2": PublishedRecipe(5e-5, 5e-5, 2.0, warmup=0, frequency=500),
}


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


def size_of(folder: Path) -> int:
    """Training examples of a task that was written."""
    from datasets import load_from_disk

    return len(load_from_disk(str(folder))["train"])


def write_task(folder: Path, task: str, most: int | None = None) -> None:
    """Write both splits of a task with `save_to_disk`, at most `most` examples of each."""
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    counts = json.loads(_LENGTHS.read_text(encoding="utf-8"))[task]
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


def copy_task(folder: Path, task: str, source: Path, most: int | None = None) -> None:
    """Write the splits of a real task as `write_task` does: of a folder in GLUE's layout, or made by `save_to_disk`."""
    from datasets import DatasetDict, disable_progress_bars, load_dataset, load_from_disk

    disable_progress_bars()
    if (source / "dataset_dict.json").is_file():
        loaded = load_from_disk(str(source))
    else:
        files = {split: str(source / task / f"{split}-*.parquet") for split in ("train", "validation")}
        loaded = load_dataset("parquet", data_files=files, cache_dir=str(folder.parent / "read"))
    columns, _ = TEXTS[task]
    splits = {split: loaded[split].select_columns([*columns, "label"]) for split in ("train", "validation")}
    few = {split: rows.select(range(min(len(rows), most or len(rows)))) for split, rows in splits.items()}
    DatasetDict(few).save_to_disk(str(folder))
