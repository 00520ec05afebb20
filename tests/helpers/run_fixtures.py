"""What tests of runs that are cut share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cut_helpers import WORDS, Ask
from hydra import compose, initialize_config_dir
from sweep_helpers import Sweep

from hydraprune.config.composition import conf_dir
from hydraprune.runs import run as runs
from hydraprune.runs.experiment import Experiment, build_experiment
from hydraprune.training import checkpoints, loop


@pytest.fixture
def ask(workplace: Path, small: tuple[str, ...]) -> Iterator[Ask]:
    """The experiment of a small run, as the command line makes it."""

    def asked(*words: str) -> Experiment:
        sparse = ("scheduler.", "dense.") if "pattern=dense" in words else ()
        sparse = ("scheduler.", "training.epochs=3") if "training.epochs=0" in words else sparse
        own = [word for word in small if not word.startswith(sparse)]
        return build_experiment(compose("config", [*own, *WORDS, *words], return_hydra_config=True))

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield asked


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every run of this process held after its last step: weights, masks, memory, optimizer, generators."""
    held: list[Any] = []

    def fit(run: Any, *rest: Any) -> Any:
        progress = loop.fit(run, *rest)
        held.append(copy.deepcopy(checkpoints._state(run, progress)))
        return progress

    monkeypatch.setattr(runs, "fit", fit)
    return held


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the dense models of this file are kept, to be trained once."""
    return tmp_path_factory.mktemp("dense")


@pytest.fixture
def sweep(workplace: Path) -> Iterator[Callable[..., Sweep]]:
    """Start sweeps; none outlives its test."""
    started: list[Sweep] = []

    def start(*words: str) -> Sweep:
        started.append(Sweep(*words))
        return started[-1]

    yield start
    for one in started:
        one.kill()
