"""Predictions of a model for the evaluation sets of a task, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydraprune.data.examples import TaskData
from hydraprune.errors import UserError
from hydraprune.training.evaluation import Predictions
from hydraprune.utils.files import write_text


def write_predictions(predicted: Mapping[str, Predictions], data: TaskData, path: Path, key: str) -> int:
    """Write one line per evaluation example, in the order of the data; returns how many.

    A line has `set`, `example` (its number in the set, from 0), the texts, such as `text` (and `text_2`) or `words`,
    `label` and `prediction`: names of classes (lists of them for several), scores, or answers. For running text it is
    of one row.

    Args:
        key: what names `path`, for the error.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for name, made in predicted.items():
        texts = data.evaluations[name].texts
        for example, (label, prediction) in enumerate(zip(made.references, made.predictions, strict=True)):
            line: dict[str, Any] = {"set": name, "example": example}
            line |= data.labels.shown(texts[example]) if len(texts) == len(made.predictions) else {}
            line |= {"label": data.labels.named(label), "prediction": data.labels.named(prediction)}
            lines.append(json.dumps(line, ensure_ascii=False))
    try:
        write_text(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=key, value=path) from None
    return len(lines)
