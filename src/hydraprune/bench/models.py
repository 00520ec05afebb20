"""The models of a bench: loaded once, with the batches that all sides of each compute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import cached_file

from hydraprune.bench.options import LENGTHS, BenchOptions
from hydraprune.bench.workloads import BenchTask, TaskInputs, Workload, grid, task_inputs
from hydraprune.deploy.compact_model import source_of
from hydraprune.errors import UserError
from hydraprune.models.families import max_positions
from hydraprune.results.bench_report import BenchedRun
from hydraprune.results.report import read_report
from hydraprune.utils.digests import weights_digest
from hydraprune.utils.hub_access import at_home, is_local, loading


@dataclass(frozen=True)
class BenchModel:
    """A classifier to measure.

    Args:
        label: its name in the report.
        path: as the user gave it.
        folder: of its files.
    """

    label: str
    path: str
    folder: Path
    model: nn.Module
    tokenizer: Any

    @property
    def run(self) -> BenchedRun | None:
        """The finished run that it is of; None for a model that is not in the folder of one."""
        report, saved = read_report(self.folder.parent), self.folder.parent / "model"
        if report is None or not report.finished:
            return None
        try:
            weights = weights_digest(saved) if any(saved.glob("*.safetensors")) else None
        except OSError:
            weights = None
        return BenchedRun(report.spec.hash, self.folder.name, weights)


@dataclass(frozen=True)
class PreparedModel:
    """A model with the batches that all its sides compute.

    Args:
        texts: of a task, if there is one.
    """

    source: BenchModel
    workloads: list[Workload]
    texts: TaskInputs | None


def load_models(paths: Sequence[str], needs_tokenizer: bool) -> list[BenchModel]:
    """Load some models for sequence classification; each gets a label that the others do not have.

    Args:
        paths: folders, those of runs too, or hub ids.

    Raises:
        UserError: none is given, one twice, or one cannot be loaded or is no classifier.
    """
    if not paths:
        raise UserError("give at least one model", key="MODEL")
    models = []
    for path, label in zip(paths, _labels(paths), strict=True):
        source = source_of(path, "MODEL")
        named = list(getattr(source.config(), "architectures", None) or [])
        if named and not any(name.endswith("ForSequenceClassification") for name in named):
            cure = "give a model for sequence classification"
            raise UserError(f"is no classifier ({named[0]})", key="MODEL", value=path, cure=cure)
        model = source.load().eval()
        tokenizer = source.tokenizer() if needs_tokenizer else None
        models.append(BenchModel(label, path, _folder_of(source.path), model, tokenizer))
    return models


def prepare(models: Sequence[BenchModel], options: BenchOptions, task: BenchTask | None) -> list[PreparedModel]:
    """The batches of each model.

    Raises:
        UserError: a length is beyond the positions of a model, or a model does not fit the task.
    """
    lengths = options.lengths
    if lengths is None:
        positions = min(max_positions(model.model) for model in models)
        lengths = [length for length in LENGTHS if length <= positions] or [positions]
    prepared = []
    for model in models:
        workloads = grid(model.model, options, lengths)
        try:
            texts = None if task is None else task_inputs(model.model, model.tokenizer, task, options)
        except UserError as error:
            raise _with_path(error, model.path) from None
        prepared.append(PreparedModel(model, workloads + ([] if texts is None else texts.workloads), texts))
    return prepared


def _with_path(error: UserError, path: str) -> UserError:
    """The same error; if it is about MODEL, with the path that the user gave."""
    is_model = error.key == "MODEL"
    return UserError(error.reason, key="MODEL", value=path, cure=error.cure) if is_model else error


def _folder_of(path: str) -> Path:
    """The folder of a model; of one of the hub, that in the cache."""
    if is_local(path):
        return Path(os.path.abspath(at_home(path)))
    with loading("MODEL", path):
        return Path(cached_file(path, "config.json")).parent


def _labels(paths: Sequence[str]) -> list[str]:
    """For each path, as many of its last parts as tell it from the others.

    Raises:
        UserError: one is given twice.
    """
    parts = [Path(os.path.normpath(at_home(path))).parts for path in paths]
    if repeated := [path for path, own in zip(paths, parts, strict=True) if parts.count(own) > 1]:
        raise UserError("is given twice", key="MODEL", value=repeated[0])
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(own[-count:]) for own in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]
