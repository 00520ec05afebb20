"""Where does a job go? The resolvers and names that `conf/` relies on; light to import."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydraprune.errors import UserError
from hydraprune.results.report import REFUSED


def _folder(*, _root_: DictConfig) -> str:
    """`<task>/<model>/<pattern>/<slug>-<hash>` of the config that is being resolved."""
    from hydraprune.config.composition import resolved, typed_words
    from hydraprune.runs.dense import identity_of

    try:
        return identity_of(resolved(_root_), choices_of(_root_)).folder
    except (UserError, HydraException, OmegaConfBaseException):
        # Hydra wants a folder even for a job that cannot work.
        return refusals(typed_words(_root_))


def refusals(words: Iterable[str]) -> str:
    """Where a sweep keeps the report of a refused job: the same place for the same words."""
    return f"{REFUSED}/{hashlib.sha256(chr(10).join(words).encode()).hexdigest()[:12]}"


def _run_dir(*, _root_: DictConfig) -> str:
    return f"{_root_.run.root}/{_folder(_root_=_root_)}"


def _run_subdir(*, _root_: DictConfig) -> str:
    """Of a sweep's folder. A dense run is kept where sparse runs look for it, so that it is trained once."""
    folder = _folder(_root_=_root_)
    if _root_.phase != "dense" or folder.startswith(REFUSED) or not is_ours(_root_):
        return folder
    return os.path.relpath(Path(_root_.run.root) / folder, _root_.hydra.sweep.dir)


def choices_of(config: DictConfig) -> dict[str, str]:
    """group -> word chosen, Hydra's own groups included."""
    return {str(k): v for k, v in config.hydra.runtime.choices.items() if isinstance(v, str)}


def register() -> None:
    """Resolvers and names that `conf/` relies on. Safe to call again."""
    OmegaConf.register_new_resolver("hydraprune_run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("hydraprune_run_subdir", _run_subdir, replace=True)
    # A colon in a file name breaks some file systems; the words work all the same.
    ConfigStore.instance().store(group="pattern", name="2:4", node={"defaults": ["2of4"]})


def is_ours(config: DictConfig) -> bool:
    """Whether a sweep is planned by our sweeper."""
    return str(config.hydra.sweeper._target_).startswith("hydra_plugins.hydraprune")


def is_planned(config: DictConfig) -> bool:
    """Whether this is a job of a sweep of ours, which has a view and an end of its own."""
    return config.hydra.mode == RunMode.MULTIRUN and is_ours(config)
