"""`hydraprune eval` and `predict`: what a saved model predicts for the texts of a task. Light to import."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydraprune.errors import UserError

_LINES = ("", ".json", ".jsonl")


def add_eval(commands: Any) -> None:
    """Add `eval` to the commands of the command line."""
    parser = commands.add_parser("eval", help="evaluate a saved model on a task: hydraprune eval MODEL task=sst2")
    _add_words(parser)
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="also write the label and prediction of each example there, as JSON lines (.jsonl)",
    )
    parser.set_defaults(call=lambda given: evaluate(given.model, given.overrides, given.predictions))


def add_predict(commands: Any) -> None:
    """Add `predict` to the commands of the command line."""
    parser = commands.add_parser(
        "predict",
        help="what a model predicts for texts without labels: hydraprune predict MODEL task=sst2 --split test",
    )
    _add_words(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--split", help="the name of a split of the task's data set")
    where.add_argument("--file", help="a file with the columns of the task, without labels")
    parser.add_argument("--out", metavar="FILE", help="where JSON lines are written (default: the terminal)")
    parser.set_defaults(call=lambda given: predict(given.model, given.overrides, given.split, given.file, given.out))


def _add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a folder or hub id")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="task=..., task.path=..., training.device=..."
    )


def _check_words(command: str, words: Sequence[str], file: str | None, key: str) -> None:
    if not any(word.startswith("task=") for word in words):
        raise UserError("a task is needed", key=command, cure="for example task=sst2")
    if file is not None and Path(file).suffix.lower() not in _LINES:
        reason, cure = "predictions are written as JSON lines", f"name it {Path(file).stem}.jsonl"
        raise UserError(reason, key=key, value=file, cure=cure)


def evaluate(model: str, words: Sequence[str], predictions: str | None) -> int:
    """Print the scores of a model on a task.

    Args:
        model: folder or hub id.
        predictions: a file for what it predicts for each example: .jsonl or .json.

    Returns:
        The exit code.

    Raises:
        UserError: the model or the task cannot be used.
    """
    from hydraprune.runs.commands import composed

    _check_words("eval", words, predictions, "--predictions")
    with composed([*words, "pattern=dense"], model) as config:
        from hydraprune.runs.experiment import build_experiment
        from hydraprune.runs.predictions import prediction_lines, write_lines
        from hydraprune.runs.preflight import check_numbers
        from hydraprune.runs.setup import TaskLoader, predict_with, scores_of

        experiment, load_data = build_experiment(config), TaskLoader()
        check_numbers(experiment)
        predicted = predict_with(experiment, model, "MODEL", load_data)
        values = scores_of(experiment, predicted, load_data)
        if predictions is not None:
            lines = prediction_lines(predicted, load_data(experiment))
            write_lines(lines, Path(predictions), "--predictions")
            print(f"{predictions}  {len(lines):,} predictions")
    for metric, value in values.items():
        print(f"{metric}  {value:.4f}")
    return 0


def predict(model: str, words: Sequence[str], split: str | None, file: str | None, out: str | None) -> int:
    """Print, or write, what a model predicts for texts of a task that need no labels.

    Args:
        model: folder or hub id.
        split: of the task's data set; or
        file: a file with the task's columns.
        out: a file for the JSON lines; None: the terminal.

    Returns:
        The exit code.

    Raises:
        UserError: the model or the texts cannot be used.
    """
    from hydraprune.config.command_words import quoted
    from hydraprune.runs.commands import composed

    _check_words("predict", words, out, "--out")
    # The task of a file needs no training file here.
    given = [f"task.path={quoted(file)}"] if file and not any(word.startswith("task.path=") for word in words) else []
    with composed([*words, *given, "pattern=dense"], model) as config:
        from hydraprune.runs.experiment import build_experiment
        from hydraprune.runs.predictions import prediction_lines, write_lines
        from hydraprune.runs.preflight import check_numbers
        from hydraprune.runs.unlabelled import predict_texts

        experiment = build_experiment(config)
        check_numbers(experiment)
        predicted, data = predict_texts(experiment, model, "MODEL", split, file)
        lines = prediction_lines(predicted, data, has_labels=False)
        if out is not None:
            write_lines(lines, Path(out), "--out")
    print("\n".join(lines) if out is None else f"{out}  {len(lines):,} predictions")
    return 0
