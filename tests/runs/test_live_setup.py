"""Which models the kernels compute the layers of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from live_layer_helpers import trainable
from sparse_step_helpers import DATA

from hydraprune.runs.live_setup import LiveSetup
from hydraprune.training.distillation import Distiller, HiddenStates, Logits, NoDistillation
from hydraprune.training.settings import Settings
from hydraprune.utils.cache import Cache


def live_setup(folder: Path, distiller: Distiller | None = None, **settings: Any) -> LiveSetup:
    components = SimpleNamespace(
        settings=Settings(epochs=1, batch_size=8, device="cpu", **settings), distiller=distiller or NoDistillation()
    )
    runtime = {"sparse_steps": True, "compiled": True, "switch_density": 1.0}
    experiment: Any = SimpleNamespace(config={"runtime": runtime}, components=components)
    return LiveSetup(experiment, Accelerator(cpu=True), Cache(folder, 1.0), DATA)


@pytest.mark.parametrize(
    ("distiller", "settings", "why"),
    [
        (None, {"precision": "fp16"}, "precision fp16 has no kernels"),
        (HiddenStates(weight=1.0, padding=True), {}, "the loss reads hidden states of padded positions"),
    ],
    ids=["fp16", "padding"],
)
def test_models_that_stay_in_pytorch(
    distiller: Distiller | None, settings: dict[str, Any], why: str, tmp_path: Path
) -> None:
    setup = live_setup(tmp_path, distiller, **settings)
    assert setup._layers(trainable("bert")) == why
    assert setup.speed_up(trainable("bert")) is None


@pytest.mark.parametrize(
    "distiller", [NoDistillation(), HiddenStates(weight=1.0), Logits()], ids=lambda d: type(d).__name__
)
def test_a_sparse_teacher_is_in_the_kernels(distiller: Distiller, tmp_path: Path) -> None:
    teacher, setup = trainable("bert"), live_setup(tmp_path, distiller)
    assert setup.speed_up(teacher) is None  # dense
    with torch.no_grad():
        teacher.bert.encoder.layer[1].output.dense.weight[:8] = 0
    name = setup.speed_up(teacher)
    assert name is not None
    assert name.startswith("training-")
