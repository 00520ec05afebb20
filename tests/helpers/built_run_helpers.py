"""A run built as the command line does, up to its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from accelerate.state import AcceleratorState
from compose_helpers import composing

from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.setup import TaskLoader, prepare
from hydraprune.tracking import Silent
from hydraprune.training.setup import TrainingSetup


@contextmanager
def building(small: Sequence[str], dense: str) -> Iterator[Callable[..., TrainingSetup]]:
    """A function from the words of a run to its training; the run starts from the model in the folder `dense`."""
    own = [word for word in small if not word.startswith("dense.")]
    with composing() as compose:

        def make(*words: str) -> TrainingSetup:
            config = compose(*own, f"dense.source={dense}", *words)
            return prepare(build_experiment(config), dense, TaskLoader()).training(Silent())

        yield make
    AcceleratorState._reset_state(reset_partial_state=True)
