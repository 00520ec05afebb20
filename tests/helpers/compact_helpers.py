"""Sparse models in folders, and a reader of compact files that is written from docs/compact_format.md alone."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_helpers import save_checkpoint
from torch import nn


def prune_blocks(model: nn.Module, rows: int = 4, density: float = 0.1) -> nn.Module:
    """Zero random blocks of `rows` x 1 in every Linear of the encoder, in place; exactly `density` are left."""
    generator = torch.Generator().manual_seed(3)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layer" in name:
            groups, columns = module.weight.shape[0] // rows, module.weight.shape[1]
            score = torch.rand(groups * columns, generator=generator)
            keep = torch.zeros(groups * columns)
            keep[score.topk(max(1, round(density * len(score)))).indices] = 1
            module.weight.data *= keep.view(groups, columns).repeat_interleave(rows, 0)
    return model


def save_sparse(folder: Path, kind: str = "bert", rows: int = 4, **sizes: Any) -> nn.Module:
    """Save a small sparse model of a family with its tokenizer; returns the model."""
    model = prune_blocks(save_checkpoint(folder, kind, **sizes), rows)
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


def logits_of(model: nn.Module, length: int = 9) -> torch.Tensor:
    """The outputs of a model for three texts of random tokens, the last with padding."""
    ids = torch.randint(5, 50, (3, length), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[-1, length // 2 :] = 0
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits


TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "<u1", "F64": "<f8", "I64": "<i8", "I32": "<i4", "BOOL": "?"}


def read_by_description(path: Path) -> dict[str, Any]:
    """Name -> numpy array of every weight in a compact file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header.pop("__metadata__")["hydraprune-compact"])
    assert description["version"] == 1
    checksum = hashlib.sha256()
    for name, entry in sorted(description["weights"].items()):
        checksum.update(f"{name} {entry['block']} [{','.join(map(str, entry['shape']))}]\n".encode())
    arrays = {}
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        data = content[8 + length + begin : 8 + length + end]
        checksum.update(f"{name} {entry['dtype']} [{','.join(map(str, entry['shape']))}]\n".encode() + data)
        array = np.frombuffer(data, TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array.astype(np.float32) if entry["dtype"] == "F16" else array
    assert checksum.hexdigest() == description["sha256"]
    for name, entry in description["weights"].items():
        rows, columns = entry["shape"]
        block, groups = entry["block"], math.ceil(rows / entry["block"])
        bitmap, values = arrays.pop(f"{name}.bitmap"), arrays.pop(f"{name}.values")
        matrix, count = np.zeros((groups * block, columns), np.float32), 0
        for number in range(groups * columns):
            if bitmap[number // 8] >> number % 8 & 1:
                first = number // columns * block
                matrix[first : first + block, number % columns] = values[count]
                count += 1
        assert count == len(values)
        arrays[name] = matrix[:rows]
    return arrays
