"""Runs that start from non-finite weights are refused; emptied layers are logged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cut_helpers import Ask, log_of
from safetensors.torch import load_file, save_file

from hydraprune.errors import UserError
from hydraprune.runs import run as runs
from hydraprune.runs.preflight import preflight
from hydraprune.runs.setup import TaskLoader


def test_a_dense_model_or_teacher_with_nan_weights_is_refused(ask: Ask, workplace: Path) -> None:
    """Refused before anything is trained."""
    dense = ask("pattern=dense", "training.epochs=1")
    runs.execute(dense)
    # A copy: the weights of a finished run are compared with what it saved before they are read.
    model = Path(shutil.copytree(dense.directory / "model", workplace / "broken"))
    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    weights[name][3, 5] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    for key in ("dense.source", "distill.teacher"):
        experiment = ask("pattern=4x1", f"{key}={model}")
        with pytest.raises(UserError, match=rf"{key}=.*: 1 of its weights hold NaN or infinity, {name} among them"):
            preflight(experiment, TaskLoader())
        assert not experiment.directory.exists()


def test_emptied_layers_are_logged(ask: Ask) -> None:
    experiment = ask("pattern=4x1", "pattern.cap=1.0", "pattern.target_sparsity=0.97")
    runs.execute(experiment)
    log = log_of(experiment.directory)
    report = json.loads((experiment.directory / "report.json").read_text())
    weights = load_file(experiment.directory / "model" / "model.safetensors")
    emptied = [name for name, weight in weights.items() if "layer" in name and weight.dim() == 2 and not weight.any()]
    assert emptied, report["parts"]
    assert f"pruner 4x1: {len(emptied)} of its layers have no weight left (" in log
    assert all(f"{name}" in log for name in emptied)
