"""Folders of runs: the resolvers and names that `conf/` relies on. Light to import."""

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


def register() -> None:
    """Register the resolvers and names that `conf/` relies on. Safe to call again."""
    OmegaConf.register_new_resolver("hydraprune_run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("hydraprune_run_subdir", _run_subdir, replace=True)
    # A colon in a file name breaks some file systems; `pattern=2:4` works all the same.
    ConfigStore.instance().store(group="pattern", name="2:4", node={"defaults": ["2of4"]})


# As conf/config.yaml has them.
RUN_DIR, SWEEP_SUBDIR = "${hydraprune_run_dir:}", "${hydraprune_run_subdir:}"


def _run_dir(*, _root_: DictConfig) -> str:
    return f"{_root_.run.root}/{_folder(_root_)}"


def _run_subdir(*, _root_: DictConfig) -> str:
    return sweep_subdir(_root_, _folder(_root_))


def _folder(config: DictConfig) -> str:
    """`<task>/<model>/<pattern>/<slug>-<hash>` of the config that is being resolved."""
    from hydraprune.config.composition import typed_words
    from hydraprune.runs.experiment import folder_of

    try:
        return folder_of(config)
    except (UserError, HydraException, OmegaConfBaseException):
        # Hydra needs a folder even for a job that is refused.
        return refusal_folder(typed_words(config))


def sweep_subdir(config: DictConfig, folder: str) -> str:
    """A run's folder below the sweep's. A dense run is kept where sparse runs look for it, so it is trained once."""
    if config.phase != "dense" or folder.startswith(REFUSED) or not has_planned_sweeper(config):
        return folder
    return os.path.relpath(Path(config.run.root) / folder, config.hydra.sweep.dir)


def refusal_folder(overrides: Iterable[str]) -> str:
    """Where a sweep keeps the report of a refused job: the same place for the same overrides."""
    return f"{REFUSED}/{hashlib.sha256(chr(10).join(overrides).encode()).hexdigest()[:12]}"


def has_planned_sweeper(config: DictConfig) -> bool:
    """Whether `hydra/sweeper=hydraprune` runs the sweep, which plans its jobs."""
    return str(config.hydra.sweeper._target_).startswith("hydra_plugins.hydraprune")


def is_planned(config: DictConfig) -> bool:
    """Whether this is a job of a planned sweep, which has its own live view and table."""
    return config.hydra.mode == RunMode.MULTIRUN and has_planned_sweeper(config)
