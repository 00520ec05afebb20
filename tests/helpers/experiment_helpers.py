"""Experiments as the command line builds them."""

from __future__ import annotations

from hydra import compose

from hydraprune.runs.experiment import Experiment, build_single_run


def experiment_of(*words: str) -> Experiment:
    """The experiment of some overrides; Hydra must be initialized."""
    return build_single_run(compose("config", list(words), return_hydra_config=True))


def dense_run(experiment: Experiment) -> Experiment:
    """The dense run that a sparse one starts from."""
    assert experiment.dense is not None
    return experiment.dense
