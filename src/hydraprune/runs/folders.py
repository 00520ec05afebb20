"""Folders of runs and of refused jobs, in a run's root and in a sweep's folder. Light to import."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig

from hydraprune.results.report import REFUSED

# As conf/config.yaml has them.
RUN_DIR, SWEEP_SUBDIR = "${hydraprune_run_dir:}", "${hydraprune_run_subdir:}"
# Subfolder of a sweep's: what the processes of its jobs print.
LOGS = "logs"
# Environment of a job that an engine starts: the folder for the report of its refusal, and whether it trains only the
# dense run that it starts from.
REFUSAL, ONLY_DENSE = "HYDRAPRUNE_REFUSAL", "HYDRAPRUNE_ONLY_DENSE"


def sweep_subdir(config: DictConfig, folder: str) -> str:
    """A run's folder below the sweep's. Dense runs stay in `run.root`, where every sparse run finds them."""
    if config.phase != "dense" or folder.startswith(REFUSED) or not has_planned_sweeper(config):
        return folder
    return os.path.relpath(Path(config.run.root) / folder, config.hydra.sweep.dir)


def refusal_folder(overrides: Iterable[str]) -> str:
    """The folder, below the sweep's, for the report of a refused job; equal overrides have the same."""
    return f"{REFUSED}/{hashlib.sha256(chr(10).join(overrides).encode()).hexdigest()[:12]}"


def has_planned_sweeper(config: DictConfig) -> bool:
    """Whether `hydra/sweeper=hydraprune` runs the sweep, which plans its jobs."""
    return str(config.hydra.sweeper._target_).startswith("hydra_plugins.hydraprune")


def is_planned(config: DictConfig) -> bool:
    """Whether this is a job of a planned sweep, which has its own live view and table."""
    return config.hydra.mode == RunMode.MULTIRUN and has_planned_sweeper(config)
