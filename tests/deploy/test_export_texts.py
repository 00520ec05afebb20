"""Texts of tasks for the checks of exports: rows as the model of each task reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydraprune.data.encoding import encode
from hydraprune.deploy.compact_model import source_of
from hydraprune.deploy.text_batches import input_batches
from hydraprune.runs.commands import composed
from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.setup import TaskLoader

TASKS = ["toy_choices", "toy_questions", "toy_tags", "toy_masked_text", "toy_text", "toy"]


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_those_that_the_model_was_trained_on(
    task: str, train: Callable[..., Any], hydraprune: Callable[..., Any], workplace: Path
) -> None:
    model = "tiny_decoder" if task == "toy_text" else "tiny"
    words = [f"task={task}", "task.train_examples=100", "task.evaluation_examples=40"]
    finished = train(*words, f"model={model}", "pattern=dense", "training.epochs=1", "hydra.run.dir=run")
    assert finished.code == 0, finished.err
    exported = hydraprune("export", "run", "--to", "compact", "--out", "compact", *words)
    assert exported.code == 0, exported.err
    source = source_of("run", "MODEL")
    tokenizer = source.tokenizer()
    with composed([*words, "pattern=dense"], "run") as config:
        experiment = build_experiment(config)
        data, longest = TaskLoader()(experiment), experiment.components.task.max_length
    check = next(iter(data.evaluations.values()))
    encoded = encode(tokenizer, check, longest, data.labels)
    rows = {tuple(row.tolist()) for row in encoded.inputs["input_ids"].split(encoded.lengths.tolist())}
    taken = [
        tuple(row[mask.bool()].tolist())
        for batch in input_batches(check.texts, tokenizer, source.load(), 4, longest, data.labels)
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert set(taken) <= rows
    assert len(taken) == min(len(encoded), max(64, len(check)))
