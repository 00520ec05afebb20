"""The dense model that a sparse run starts from: found, or trained first."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from hydraprune.config import instantiate as assembly
from hydraprune.config.composition import plain, resolved
from hydraprune.config.identity import Identity, identify
from hydraprune.config.schema import flattened, nearest, override_key, unknown_override
from hydraprune.errors import UserError
from hydraprune.results.report import RunReport, finished_run
from hydraprune.runs.experiment import Request

log = logging.getLogger(__name__)

# What a dense run shares with the sparse run that asks for it.
_SHARED_GROUPS = ("model", "task")
_SHARED_KEYS = (
    "seed",
    "training.precision",
    "training.device",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "runtime",
    "cache",
    "run.root",
    "tracker",
)

_NOT_FOR_OVERRIDES = {
    *("model", "task", "seed", "run", "runtime", "pattern", "phase", "pruner", "scheduler"),
    *("progressive", "regularizer"),
    *("dense", "experiment", "hydra", "sweep"),
}

AUTO = "auto"


# Jobs whose questions are remembered: a sweep asks them of one job after the other.
_REMEMBERED = 64
_Answer = TypeVar("_Answer")
_Question = Callable[[DictConfig, Mapping[str, str]], _Answer]


def _by_content(question: _Question[_Answer]) -> _Question[_Answer]:
    """Ask once of equal configs. What is answered is shared, so it must not be changed."""
    known: dict[tuple[object, str], _Answer] = {}

    @wraps(question)
    def asked(config: DictConfig, choices: Mapping[str, str]) -> _Answer:
        # Another Hydra may have another search path.
        key = (GlobalHydra.instance().hydra, repr((plain(config), sorted(choices.items()))))
        if key not in known:
            while len(known) >= _REMEMBERED:
                known.pop(next(iter(known)))
            known[key] = question(config, choices)
        return known[key]

    return asked


@_by_content
def identity_of(config: DictConfig, choices: Mapping[str, str]) -> Identity:
    """The identity of a resolved config, that of its dense ancestor included.

    Args:
        choices: group -> the word chosen, as in `model=bert_mini`.
    """
    before = None
    if config.phase == "sparse" and _is_auto(config):
        before = identity_of(_dense_config(config, choices)[0], choices)
    return identify(plain(config), assembly.plans(config).name, before)


def of(request: Request) -> Request | None:
    """The dense run that a run starts from, if it is one of ours."""
    return dense_request(request) if request.config.phase == "sparse" and _is_auto(request.config) else None


def _is_auto(config: DictConfig) -> bool:
    return str(config.dense.source) == AUTO


def dense_request(request: Request) -> Request:
    """The dense run of the same model, task, seed, precision and threads.

    It is the run that `pattern=dense` would make with those words, and has its hash. Everything
    else about it comes from `dense.overrides`.
    """
    shared, typed = _dense_config(request.config, request.choices)
    config = copy.deepcopy(shared)
    choices = {**request.choices, "pattern": "dense", "phase": "dense"}
    identity = identity_of(config, choices)
    return Request(
        config, choices, list(typed), identity, Path(config.run.root) / identity.folder, request.alone, False
    )


@_by_content
def _dense_config(heir: DictConfig, choices: Mapping[str, str]) -> tuple[DictConfig, list[str]]:
    """The resolved config of the dense run, and the words that it stands for."""
    typed = [str(override) for override in heir.dense.overrides]
    words = [f"{group}={choices[group]}" for group in _SHARED_GROUPS if group in choices]
    words += ["pattern=dense", *typed]
    for key in map(override_key, typed):
        if key.split(".")[0] in _NOT_FOR_OVERRIDES:
            raise UserError(
                f"dense.overrides={typed}: {key} is the sparse run's, or decides what the dense run is; override "
                f"training, optimizer, lr_scheduler or distill"
            )
    config = _composed(words, typed)
    meant = {key: OmegaConf.select(config, key) for key in map(override_key, (o for o in typed if o[0] != "~"))}
    with open_dict(config):
        for key in (*_SHARED_GROUPS, *_SHARED_KEYS):
            node, _, leaf = key.rpartition(".")
            if leaf in (OmegaConf.select(heir, node) if node else heir):
                OmegaConf.update(config, key, OmegaConf.select(heir, key), merge=False)
            elif node:
                OmegaConf.select(config, node).pop(leaf, None)  # as in ~training.device
        for key, value in meant.items():
            OmegaConf.update(config, key, value, merge=False)
    return resolved(config), words


def composed(words: Sequence[str]) -> DictConfig:
    """What some words compose to, interpolations as they stand. A sweep asks for the same words for every job.

    Raises:
        HydraException: the words do not fit.
    """
    return copy.deepcopy(_remembered(GlobalHydra.instance().hydra, tuple(words)))


@lru_cache(maxsize=64)
def _remembered(_: object, words: tuple[str, ...]) -> DictConfig:
    # The first argument: another Hydra may have another search path.
    config: DictConfig = compose("config", list(words))
    return config


def _composed(overrides: list[str], typed: list[str]) -> DictConfig:
    try:
        return composed(overrides)
    except HydraException as error:
        key = unknown_override(error)
        why = " ".join(str(error).split())
        if key is not None:
            why = f"{key}: no such key{nearest(key, flattened(plain(composed(['pattern=dense']))))}"
        raise UserError(f"dense.overrides={typed}: {why}") from None


def finished(request: Request) -> RunReport | None:
    """The report of this very run if it is finished and its model is there."""
    return finished_run(request.directory, request.hash)


def ensure(request: Request, train: Callable[[Request], RunReport]) -> tuple[str, RunReport | None]:
    """The dense model for a sparse run, trained by `train` if there is none yet.

    Returns:
        (its folder or id, its report; None for a model that the user brought)
    """
    dense = of(request)
    if dense is None:
        return str(request.config.dense.source), None
    report = finished(dense)
    if report is None:
        log.info(
            "No dense %s for %s yet: training it first, into %s",
            dense.config.model.name,
            dense.config.task.name,
            dense.directory,
        )
        report = train(dense)
    else:
        log.info("Dense model: %s", dense.directory)
    return str(dense.directory / "model"), report
