"""The study of a command and the engine that runs its trials, made from the config."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydraprune.config.instantiate import make
from hydraprune.config.schema import check_arguments
from hydraprune.errors import UserError
from hydraprune.jobs import Engine, Here
from hydraprune.search.settings import OptunaStudy
from hydraprune.sweeps.job_commands import engine_of


def settings_of(master: DictConfig) -> OptunaStudy:
    """The study that a config describes.

    Raises:
        UserError: Optuna is not installed, or a key does not fit.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("Optuna is not installed", key="study", cure="pip install 'hydraprune[study]'")
    node: Any = OmegaConf.to_container(master.study, resolve=True)
    check_arguments(node, "study.", set())
    made: OptunaStudy = make({"study": node}, "study")
    return made


def engine_of_study(master: DictConfig) -> tuple[Engine, int]:
    """The engine that a config names, or processes of this machine, and the trials that run at a time.

    Raises:
        UserError: a key does not fit, the engine leaves its jobs, or has no number of them at a time.
    """
    engine = engine_of(master) or Here()
    if engine.leaves:
        raise UserError("a study waits for its trials", key="submit", value=True, cure="leave it out")
    if engine.workers is None:
        raise UserError("a study needs the number of its trials at a time", key="at_once", cure="as in at_once=8")
    # It is kept by the study: its jobs are given to the engine one by one.
    single: Any = engine
    return replace(single, at_once=None), engine.workers
