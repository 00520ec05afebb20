"""OmegaConf resolvers, names and checks of files that `conf/` relies on. Light to import."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydraprune.config.config_files import check_config_files
from hydraprune.config.model_choice import model_name
from hydraprune.errors import UserError
from hydraprune.runs.folders import refusal_folder, sweep_subdir


def register() -> None:
    """Register the resolvers, names and file checks that `conf/` relies on. Safe to call again."""
    check_config_files()
    resolvers: dict[str, Callable[..., Any]] = {
        "run_dir": _run_dir,
        "run_subdir": _run_subdir,
        "model_name": model_name,
    }
    with warnings.catch_warnings():  # OmegaConf 2.4 gives it another name, which 2.3 has for something else
        warnings.filterwarnings("ignore", "register_new_resolver")
        for name, resolver in resolvers.items():
            OmegaConf.register_new_resolver(f"hydraprune_{name}", resolver, replace=True)
    # A colon in a file name breaks some file systems; `pattern=2:4` works all the same.
    ConfigStore.instance().store(group="pattern", name="2:4", node={"defaults": ["2of4"]})


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
