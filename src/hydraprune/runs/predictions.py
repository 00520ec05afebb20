"""Predictions of a model for the evaluation sets of a task, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from hydraprune.data.examples import TaskData
from hydraprune.errors import UserError
from hydraprune.training.evaluation import Predictions
from hydraprune.utils.files import write_text


def write_predictions(predicted: Mapping[str, Predictions], data: TaskData, path: Path, key: str) -> int:
    """Write one line per evaluation example, in the order of the data; returns how many.

    A line has `set`, `example` (its number in the set, from 0), `text` (and `text_2`) or `words`, `label` and
    `prediction`: names of classes (lists of them for several), or scores.

    Args:
        key: what names `path`, for the error.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for name, made in predicted.items():
        rows = sorted(zip(made.examples, made.references, made.predictions, strict=True), key=itemgetter(0))
        for example, label, prediction in rows:
            texts = data.evaluations[name].texts[example]
            line: dict[str, Any] = {"set": name, "example": example}
            if data.labels.per_token:
                line["words"] = texts
            else:
                line["text"] = texts[0]
                line |= {f"text_{place}": text for place, text in enumerate(texts[1:], start=2)}
            line |= {"label": data.labels.named(label), "prediction": data.labels.named(prediction)}
            lines.append(json.dumps(line, ensure_ascii=False))
    try:
        write_text(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=key, value=path) from None
    return len(lines)
