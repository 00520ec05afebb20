"""Fixtures for tests of interrupted runs and sweeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_helpers import composing
from cut_helpers import WORDS, Ask
from sweep_helpers import Sweep

from hydraprune.runs import run as runs
from hydraprune.runs.experiment import Experiment, build_experiment
from hydraprune.training import checkpoints, loop


@pytest.fixture
def ask(workplace: Path, small: tuple[str, ...]) -> Iterator[Ask]:
    """Build the experiment of a small run, as the command line does."""

    with composing() as compose:

        def asked(*words: str) -> Experiment:
            sparse = ("scheduler.", "dense.") if "pattern=dense" in words else ()
            sparse = ("scheduler.", "training.epochs=3") if "training.epochs=0" in words else sparse
            sparse = ("scheduler.",) if "pattern=lock" in words else sparse
            own = [word for word in small if not word.startswith(sparse)]
            return build_experiment(compose(*own, *WORDS, *words))

        yield asked


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The training state after the last step of every run of this process: weights, masks, optimizer, generators."""
    held: list[Any] = []

    def fit(run: Any, *rest: Any) -> Any:
        progress = loop.fit(run, *rest)
        state = copy.deepcopy(checkpoints._state(run, progress))
        for kind in ("dense", "sparse"):
            del state["sparse_steps"][kind]["seconds"]
        held.append(state)
        return progress

    monkeypatch.setattr(runs, "fit", fit)
    return held


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the dense models of a test file, which are trained once."""
    return tmp_path_factory.mktemp("dense")


@pytest.fixture
def sweep(workplace: Path) -> Iterator[Callable[..., Sweep]]:
    """Start sweeps, and kill them at the end of the test."""
    started: list[Sweep] = []

    def start(*words: str) -> Sweep:
        started.append(Sweep(*words))
        return started[-1]

    yield start
    for one in started:
        one.kill()
