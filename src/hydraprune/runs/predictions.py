"""Predictions of a model for the evaluation sets of a task, as JSON lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydraprune.data.examples import TaskData
from hydraprune.errors import UserError
from hydraprune.training.evaluation import Predictions
from hydraprune.utils.files import write_text

log = logging.getLogger(__name__)


def prediction_lines(predicted: Mapping[str, Predictions], data: TaskData, has_labels: bool = True) -> list[str]:
    """A line for each evaluation example, in the order of the data.

    A line has `set`, `example` (its number in the set, from 0), the texts, such as `text` (and `text_2`) or `words`,
    `label`, if it has one, and `prediction`: names of classes (lists of them for several), scores, or answers. Words
    that were cut off have null. For running text a line is of one row.
    """
    lines, cut = [], 0
    for name, made in predicted.items():
        texts = data.evaluations[name].texts
        for example, (label, prediction) in enumerate(zip(made.references, made.predictions, strict=True)):
            line: dict[str, Any] = {"set": name, "example": example}
            named = {"label": data.labels.named(label), "prediction": data.labels.named(prediction)}
            if data.labels.is_running_text:
                line |= named
            else:
                line |= data.labels.shown(texts[example])
                line |= {key: data.labels.of_texts(value, texts[example]) for key, value in named.items()}
            if not has_labels and not data.labels.is_running_text:
                del line["label"]
            cut += isinstance(line["prediction"], list) and None in line["prediction"]
            lines.append(json.dumps(line, ensure_ascii=False))
    if cut:
        log.warning("%d examples are longer than task.max_length: words beyond it have null as prediction", cut)
    return lines


def write_lines(lines: Sequence[str], path: Path, key: str) -> None:
    """Write lines to a file.

    Args:
        key: what names `path`, for the error.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_text(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=key, value=path) from None
