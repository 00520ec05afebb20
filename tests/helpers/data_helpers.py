"""Data files with forty labelled sentences, tasks that read them, and encoded data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from hydraprune.data.batches import Encoded
from hydraprune.data.examples import TaskData
from hydraprune.data.splits import check_splits
from hydraprune.data.task_checks import check_metrics
from hydraprune.data.tasks import FileTask

TEXTS, LABELS = [f"a sentence {i}" for i in range(40)], [i % 2 for i in range(40)]
ROWS: list[dict[str, Any]] = [{"text": t, "label": y} for t, y in zip(TEXTS, LABELS, strict=True)]
CSV = "text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(TEXTS, LABELS, strict=True))
JSON = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = {"text": pa.array(TEXTS), "label": pa.array(LABELS)}
# A file's content, or a function that makes the file.
Content = str | bytes | Callable[[Path], Any]


def json_lines(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def parquet_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def parquet_with(**columns: pa.Array) -> bytes:
    """The forty sentences with some columns replaced."""
    return parquet_of(pa.table({**TABLE, **columns}))


def write_file(path: Path, content: Content) -> Path:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def file_task(path: Path, **more: Any) -> FileTask:
    """A task on a file, with the defaults of conf/task/file.yaml; a quarter of it for evaluation."""
    keys: dict[str, Any] = {
        "name": "file", "path": str(path), "validation_path": None, "validation_share": 0.25, "text": ["text"],
        "label": "label", "labels": None, "regression": False, "metrics": ["accuracy"], "max_length": 64,
    }  # fmt: skip
    return FileTask(**{**keys, **more})


def load_checked(path: Path, **more: Any) -> TaskData:
    """What a run loads and checks."""
    task = file_task(path, **more)
    data = task.load()
    check_metrics(task.metrics, data.labels)
    check_splits(data, task.metrics)
    return data


def encoded_of(
    lengths: Sequence[int], ids: Tensor | None = None, labels: Tensor | None = None, pad_id: int = 0, **more: Tensor
) -> Encoded:
    """A data set of examples of these lengths; token ids 1, 2, 3 ... and labels 0, 1, 2 ... by default."""
    ids = torch.arange(1, sum(lengths) + 1, dtype=torch.int32) if ids is None else ids
    labels = torch.arange(len(lengths)) if labels is None else labels
    return Encoded({"input_ids": ids, **more}, torch.tensor([0, *accumulate(lengths)]), labels, pad_id)


def random_ids(count: int, low: int, high: int, seed: int) -> Tensor:
    """Token ids of low .. high - 1, [count]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count,), generator=generator, dtype=torch.int32)


def byte_level(**options: Any) -> Any:
    """A tokenizer of GPT-2's kind, trained on a few sentences."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, **options)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(["the plot of the film", "not the the good plot"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
